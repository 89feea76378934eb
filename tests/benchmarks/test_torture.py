"""A few mutants of every file that ecad reads; `benchmarks/torture.py` makes thousands."""

from __future__ import annotations

import importlib
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CASES = 30


@pytest.fixture(scope="module")
def torture() -> Iterator[ModuleType]:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield importlib.import_module("torture")
    finally:
        sys.path.remove(str(BENCHMARKS))
        for name in ("torture", "targets"):
            sys.modules.pop(name, None)


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_is_read_or_refused_on_one_line(torture: ModuleType) -> None:
    refused = 0
    for name, target in torture.TARGETS.items():
        found = torture.torture(target, CASES, random.Random(name))
        assert not found["faults"], name
        refused += found.get("refused", 0)
    assert refused > CASES * len(torture.TARGETS) / 3


def test_what_is_no_error_of_ours_is_a_fault(torture: ModuleType, tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        raise KeyError("x")

    assert torture.outcome(fail, tmp_path)[0] == "fault"
