"""TGATE (Liu et al., arXiv 2404.02747) in schedule files: its attention entries, and its gate in the pipeline config.

From the gate step on, cross-attention is the mean of what it was for the two guidance halves, and guidance is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

from ecad.errors import ScheduleError
from ecad.schedules import json_values as plain

# The key, name and only argument of the custom computation that published schedules use.
KEY = "custom_compute_attn"
NAME = "compute_attn_tgate"
GATE = "gate_step"


def entry_gate(entry: Mapping[str, Any]) -> int | None:
    """The gate step of a custom computation; None if it is not TGATE's.

    >>> entry_gate({"name": "compute_attn_tgate", "kwargs": {"gate_step": 10}})
    10
    """
    kwargs = entry["kwargs"]
    return kwargs[GATE] if entry["name"] == NAME and set(kwargs) == {GATE} and _is_step(kwargs[GATE]) else None


def gate_entry(gate: int) -> dict[str, object]:
    """The custom computation that `entry_gate` reads."""
    return {"name": NAME, "kwargs": {GATE: gate}}


def pipeline_gate(config: Mapping[str, object]) -> int | None:
    """The gate step of the pipeline that a schedule's config names; None if it is not a TGATE pipeline.

    Raises:
        ScheduleError: it is a TGATE pipeline without a valid gate step.

    >>> pipeline_gate({"pipeline": {"name": "tgate", "kwargs": {"gate_step": 10}}})
    10
    """
    pipeline = config.get("pipeline")
    if not isinstance(pipeline, Mapping) or pipeline.get("name") != "tgate":
        return None
    kwargs = pipeline.get("kwargs")
    gate = kwargs.get(GATE) if isinstance(kwargs, Mapping) else None
    if not _is_step(gate):
        raise ScheduleError(f"config.pipeline.kwargs.{GATE} is not a step", expected="0 or more", found=repr(gate))
    return gate


def with_pipeline_gate(config: Mapping[str, object], gate: int) -> dict[str, object]:
    """A copy of a config that names a TGATE pipeline, with another gate step."""
    changed: dict[str, Any] = plain.thaw(config)
    changed["pipeline"]["kwargs"][GATE] = gate
    return changed


def _is_step(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
