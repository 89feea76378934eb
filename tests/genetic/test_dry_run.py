"""What a dry run says of memory; its images and minutes are tested with the command."""

from __future__ import annotations

import sys

import pytest

from ecad.genetic.dry_run import process_bytes


def test_memory_of_this_process_is_more_than_its_interpreter_and_less_than_a_terabyte() -> None:
    known = process_bytes()
    assert known is not None
    assert 1 << 20 < known < 1 << 40


def test_a_system_without_the_module_for_it_leaves_memory_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)
    assert process_bytes() is None
