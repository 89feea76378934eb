"""A few mutants of every file that ecad reads; `tools/robustness/torture.py` makes thousands."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torture

CASES = 30


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_is_read_or_refused_on_one_line() -> None:
    refused = 0
    for name, target in torture.TARGETS.items():
        found = torture.torture(target, CASES, random.Random(name))
        assert not found["faults"], name
        refused += found.get("refused", 0)
    assert refused > CASES * len(torture.TARGETS) / 3


def test_what_is_no_error_of_ours_is_a_fault(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        raise KeyError("x")

    assert torture.outcome(fail, tmp_path)[0] == "fault"
