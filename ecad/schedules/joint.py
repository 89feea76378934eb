"""A schedule of several denoisers, split into one schedule for each, and made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ecad.errors import ScheduleError
from ecad.schedules import json_values as plain
from ecad.schedules.provenance import KEY, OF_DENOISER, RESAMPLED, SEPARATOR
from ecad.schedules.schedule import CacheSchedule
from ecad.sites.several import columns_of, joint_sites


def by_denoiser(schedule: CacheSchedule, names: Sequence[str]) -> dict[str, CacheSchedule]:
    """The schedule of each denoiser of a pipeline, with its own provenance.

    Args:
        schedule: of one denoiser; of several, if its blocks are named DENOISER.BLOCK as `joint_sites` names them.
        names: of the pipeline's denoisers, in the pipeline's order.

    Returns:
        denoiser -> schedule. Those of several have no metrics, which are of all denoisers together; a denoiser of which
        the schedule has no block is left out.

    Raises:
        ScheduleError: there are several denoisers and a block names none of them, or the provenance is malformed.

    >>> from ecad.schedules import heuristics
    >>> both = heuristics.none([("transformer.0", "ff"), ("transformer_2.0", "ff")], 4)
    >>> by_denoiser(both, ["transformer", "transformer_2"])["transformer_2"].sites
    (('0', 'ff'),)
    """
    if len(names) == 1:
        return {names[0]: schedule}
    return {
        name: CacheSchedule(
            schedule.recompute[:, places],
            sites,
            schedule.name,
            forecast=schedule.forecast,
            output_products=schedule.output_products,
            output_weights=schedule.output_weights,
            config=schedule.config,
            attributes=_attributes_of(schedule.attributes, list(names).index(name), len(names)),
            custom_compute=_custom_compute_of(schedule, name),
        )
        for name, (places, sites) in columns_of(schedule.sites, names).items()
    }


def joined(schedules: Mapping[str, CacheSchedule]) -> CacheSchedule:
    """The bits of a schedule for each denoiser as one schedule, named like the first.

    What extrapolates a denoiser's output (products, weights) is left out, because each denoiser has its own.

    Args:
        schedules: Denoiser -> schedule, at least one.

    Raises:
        ScheduleError: They have different numbers of rows.

    >>> from ecad.schedules import heuristics
    >>> half, third = (heuristics.every_n([("0", "ff")], 6, n) for n in (2, 3))
    >>> joined({"transformer": half, "transformer_2": third}).sites
    (('transformer.0', 'ff'), ('transformer_2.0', 'ff'))
    """
    rows = {name: schedule.num_steps for name, schedule in schedules.items()}
    if len(set(rows.values())) != 1:
        found = ", ".join(f"{name} {count}" for name, count in rows.items())
        raise ScheduleError("schedules of one pipeline need equally many rows", found=found or "no schedule")
    return CacheSchedule(
        np.concatenate([schedule.recompute for schedule in schedules.values()], axis=1),
        joint_sites({name: schedule.sites for name, schedule in schedules.items()}),
        next(iter(schedules.values())).name,
        forecast=any(schedule.forecast for schedule in schedules.values()),
    )


def _custom_compute_of(schedule: CacheSchedule, name: str) -> dict[tuple[int, str, str], Mapping[str, Any]]:
    return {
        (step, block.removeprefix(f"{name}."), key): entry
        for (step, block, key), entry in schedule.custom_compute.items()
        if block.startswith(f"{name}.") and step < schedule.num_steps
    }


def _attributes_of(attributes: Mapping[str, Any], place: int, count: int) -> dict[str, Any]:
    """Attributes whose provenance, also that from before a resampling, is of one denoiser."""
    found: dict[str, Any] = plain.thaw(attributes)
    for holder in (found, found.get(RESAMPLED)):
        if isinstance(holder, dict) and isinstance(holder.get(KEY), dict):
            holder[KEY] = {key: _part(key, value, place, count) for key, value in holder[KEY].items()}
    return found


def _part(key: str, value: Any, place: int, count: int) -> Any:
    parts = value.split(SEPARATOR) if key in OF_DENOISER and isinstance(value, str) else []
    return parts[place] if len(parts) == count else value
