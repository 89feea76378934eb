"""A schedule found for one number of steps or blocks, carried over to another.

The rule keeps each site's density of recomputations over relative denoising time, where step i of N stands at i / N.
docs/resampling.md compares it with simpler ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ecad.errors import ScheduleError
from ecad.schedules import json_values as plain
from ecad.schedules.by_sigma import KEY as SIGMAS
from ecad.schedules.by_sigma import resampled_sigmas, sigmas_of
from ecad.schedules.output_products import resampled_products
from ecad.schedules.provenance import KEY, RESAMPLED
from ecad.sites.names import Sites, by_block, check_sites

if TYPE_CHECKING:
    from ecad.schedules.schedule import CacheSchedule

# The only custom computation that published schedules name, and its only argument: a step.
_TGATE = "compute_attn_tgate"
_GATE = "gate_step"


def resample(
    schedule: CacheSchedule, steps: int | None = None, sites: Iterable[Sequence[str]] | None = None
) -> CacheSchedule:
    """What `CacheSchedule.resample` does; arguments and errors are described there."""
    new_steps = schedule.num_steps if steps is None else steps
    if isinstance(new_steps, bool) or not isinstance(new_steps, int) or new_steps < 1:
        raise ScheduleError("steps is out of range", expected="a whole number from 1", found=repr(steps))
    new_sites = schedule.sites if sites is None else check_sites(sites)
    if (new_steps, new_sites) == (schedule.num_steps, schedule.sites):
        return schedule
    source = _blocks_at_equal_depth(schedule.sites, new_sites)
    column = {site: i for i, site in enumerate(schedule.sites)}
    recompute = schedule.recompute[:, [column[source[block], component] for block, component in new_sites]]
    changes: dict[str, Any] = {}
    if new_steps != schedule.num_steps:
        recompute = _resample_steps(recompute, new_steps)
        changes = {"name": f"{schedule.name}_at_{new_steps}_steps", "config": _resampled_config(schedule, new_steps)}
        if schedule.output_products is not None:
            changes["output_products"] = resampled_products(schedule.output_products, new_steps)
    told: dict[str, Any] = {"name": schedule.name, "steps": schedule.num_steps, "blocks": len(schedule.blocks)}
    if new_sites == schedule.sites and KEY in schedule.attributes:
        told[KEY] = schedule.attributes[KEY]
    return schedule.replace(
        recompute=recompute,
        sites=new_sites,
        metrics={},
        attributes={RESAMPLED: told},
        spare=recompute[:0],
        custom_compute=_custom_compute(schedule, new_steps, source),
        **changes,
    )


def resample_places(places: Sequence[int] | npt.NDArray[np.intp], steps: int, new_steps: int) -> list[int]:
    """The steps at which a site recomputes, carried over to another number of steps.

    Their number is scaled and rounded, half up, and is at least one. Between two of them the site's density is that of
    its nearer neighbours: a run that ends in a long pause ends at the same relative time, a regular beat stays regular.

    Args:
        places: steps that recompute, ascending, 0 among them.
        steps: how many steps these are places in.
        new_steps: how many there are to be.

    >>> resample_places([0, 3, 6, 9], 12, 18), resample_places([0, 1, 2, 3], 12, 18)
    ([0, 3, 6, 9, 12, 15], [0, 1, 2, 3, 4, 5])
    """
    count, old = _scaled(len(places), steps, new_steps), len(places)
    start = np.asarray(places, dtype=np.int64)
    gap = np.diff(start, append=steps)
    # How far a recomputation's share of density reaches past it.
    reach = np.minimum(gap, np.concatenate([gap[:1], gap[:-1]]))
    # The j-th new one stands j * old / count recomputations into the old ones; whole numbers, so halves are exact.
    order = np.arange(count)
    index, rest = np.divmod(order * old, count)
    numerator, denominator = new_steps * (start[index] * count + reach[index] * rest), steps * count
    nearest = (2 * numerator + denominator) // (2 * denominator)
    # Rounding may put two at one step: the later one takes the next, which there always is.
    distinct = np.maximum.accumulate(nearest - order) + order
    return list(map(int, distinct))


def _resample_steps(recompute: npt.NDArray[np.bool_], new_steps: int) -> npt.NDArray[np.bool_]:
    steps, num_sites = recompute.shape
    resampled = np.zeros((new_steps, num_sites), dtype=bool)
    for site in range(num_sites):
        # The first step computes whatever its bits say.
        places = np.union1d([0], recompute[:, site].nonzero()[0])
        resampled[resample_places(places, steps, new_steps), site] = True
    return resampled


def _scaled(count: int, steps: int, new_steps: int) -> int:
    """A number of steps at another number of steps in all, rounded half up, at least one."""
    return max(1, (2 * count * new_steps + steps) // (2 * steps))


def _blocks_at_equal_depth(sites: Sites, new_sites: Sites) -> dict[str, str]:
    """For each new block the old one of the same components whose relative depth, first 0 and last 1, is nearest."""
    if sites == new_sites:
        return {block: block for block, _ in sites}
    old, new = _by_kind(sites), _by_kind(new_sites)
    source = {}
    for kind, blocks in new.items():
        if kind not in old:
            found = "; ".join(", ".join(components) for components in old)
            expected = ", ".join(kind)
            raise ScheduleError("no block has this one's components", block=blocks[0], expected=expected, found=found)
        last, old_last = max(len(blocks) - 1, 1), len(old[kind]) - 1
        for i, block in enumerate(blocks):
            source[block] = old[kind][(2 * i * old_last + last) // (2 * last)]
    return source


def _by_kind(sites: Sites) -> dict[tuple[str, ...], list[str]]:
    kinds: dict[tuple[str, ...], list[str]] = {}
    for block, components in by_block(sites):
        kinds.setdefault(tuple(components), []).append(block)
    return kinds


def _custom_compute(
    schedule: CacheSchedule, new_steps: int, source: Mapping[str, str]
) -> dict[tuple[int, str, str], dict[str, Any]]:
    """TGATE's entries with the gate at the same relative time; any other would say what nobody can check."""
    steps = schedule.num_steps
    first: dict[tuple[str, str], dict[str, Any]] = {}
    for (step, block, key), entry in schedule.custom_compute.items():
        if step >= steps:
            continue
        place = {"step": f"{step:03d}", "block": block, "component": key}
        if entry["name"] != _TGATE or set(entry["kwargs"]) != {_GATE} or not _is_step(entry["kwargs"][_GATE]):
            found = plain.show(plain.thaw(entry))
            raise ScheduleError("cannot be resampled", **place, expected=f"{_TGATE} with {_GATE} only", found=found)
        if any(schedule.custom_compute.get((i, block, key)) != entry for i in range(steps)):
            raise ScheduleError("cannot be resampled", **place, expected="one entry at all steps", found="several")
        gate = _scaled_gate(entry["kwargs"][_GATE], steps, new_steps)
        first[block, key] = {"name": _TGATE, "kwargs": {_GATE: gate}}
    return {
        (step, block, key): entry
        for step in range(new_steps)
        for block, old in source.items()
        for (place, key), entry in first.items()
        if place == old
    }


def _resampled_config(schedule: CacheSchedule, new_steps: int) -> dict[str, Any]:
    """The config, with noise levels and a TGATE pipeline's gate at the same relative times."""
    config: dict[str, Any] = plain.thaw(schedule.config)
    if (sigmas := sigmas_of(schedule)) is not None:
        config[SIGMAS] = resampled_sigmas(sigmas, new_steps)
    pipeline = config.get("pipeline")
    kwargs = pipeline.get("kwargs") if isinstance(pipeline, dict) and pipeline.get("name") == "tgate" else None
    if isinstance(kwargs, dict) and _is_step(kwargs.get(_GATE)):
        kwargs[_GATE] = _scaled_gate(kwargs[_GATE], schedule.num_steps, new_steps)
    return config


def _scaled_gate(gate: int, steps: int, new_steps: int) -> int:
    return _scaled(gate, steps, new_steps) if gate else 0


def _is_step(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
