"""A few mutants of every file that ecad reads; `tools/robustness/torture.py` makes thousands."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
import targets
import torture

from ecad.errors import EcadError

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


def test_a_reader_that_takes_too_long_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "LONGEST", 1)

    end = time.process_time() + 10

    def wait(folder: Path) -> None:
        try:
            while time.process_time() < end:
                pass
        except Exception as error:
            raise EcadError("damaged") from error

    assert torture.outcome(wait, tmp_path) == ("fault", "TooLong: more than 1 s")
