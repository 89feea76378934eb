"""TGATE's part of the file format is read in one place, and read strictly."""

from __future__ import annotations

from typing import Any

import pytest

from ecad.errors import ScheduleError
from ecad.schedules import tgate

NO_STEPS: list[Any] = [None, "10", -1, True, 1.0]


@pytest.mark.parametrize("gate", [0, 10])
def test_what_is_written_is_read(gate: int) -> None:
    assert tgate.entry_gate(tgate.gate_entry(gate)) == gate
    config = {"height": 256, "pipeline": {"name": "tgate", "kwargs": {"gate_step": 3, "more": [1]}}}
    changed = tgate.with_pipeline_gate(config, gate)
    assert tgate.pipeline_gate(changed) == gate
    assert changed == {"height": 256, "pipeline": {"name": "tgate", "kwargs": {"gate_step": gate, "more": [1]}}}
    assert tgate.pipeline_gate(config) == 3


@pytest.mark.parametrize(
    "entry",
    [
        {"name": "average", "kwargs": {"gate_step": 1}},
        {"name": tgate.NAME, "kwargs": {}},
        {"name": tgate.NAME, "kwargs": {"gate_step": 1, "x": 1}},
        *({"name": tgate.NAME, "kwargs": {"gate_step": gate}} for gate in NO_STEPS),
    ],
)
def test_another_computation_has_no_gate(entry: dict[str, Any]) -> None:
    assert tgate.entry_gate(entry) is None


@pytest.mark.parametrize("config", [{}, {"pipeline": None}, {"pipeline": "tgate"}, {"pipeline": {"name": "other"}}])
def test_another_pipeline_has_no_gate(config: dict[str, Any]) -> None:
    assert tgate.pipeline_gate(config) is None


@pytest.mark.parametrize("kwargs", [None, {}, [], *({"gate_step": gate} for gate in NO_STEPS)])
def test_a_tgate_pipeline_without_a_valid_gate_is_refused(kwargs: Any) -> None:
    with pytest.raises(ScheduleError, match="gate_step is not a step: expected 0 or more, found"):
        tgate.pipeline_gate({"pipeline": {"name": "tgate", "kwargs": kwargs}})
