"""Transfers a schedule to another number of steps or blocks.

Each site keeps its density of recomputations over relative denoising time, where step i of N stands at i / N.
docs/resampling.md compares this rule with simpler ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ecad.errors import ScheduleError
from ecad.schedules import json_values as plain
from ecad.schedules import tgate
from ecad.schedules.by_sigma import KEY as SIGMAS
from ecad.schedules.by_sigma import resampled_sigmas, sigmas_of
from ecad.schedules.fields import check_number
from ecad.schedules.output_products import resampled_products
from ecad.schedules.provenance import KEY, RESAMPLED
from ecad.sites.names import Sites, by_block, check_sites

if TYPE_CHECKING:
    from ecad.schedules.schedule import CacheSchedule


def resample(
    schedule: CacheSchedule, steps: int | None = None, sites: Iterable[Sequence[str]] | None = None
) -> CacheSchedule:
    """Implements `CacheSchedule.resample`, which documents arguments and errors."""
    new_steps = schedule.num_steps if steps is None else steps
    check_number("steps", new_steps, 1)
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
    origin: dict[str, object] = {"name": schedule.name, "steps": schedule.num_steps, "blocks": len(schedule.blocks)}
    if new_sites == schedule.sites and KEY in schedule.attributes:
        origin[KEY] = schedule.attributes[KEY]
    return schedule.replace(
        recompute=recompute,
        sites=new_sites,
        metrics={},
        attributes={RESAMPLED: origin},
        spare=recompute[:0],
        custom_compute=_custom_compute(schedule, new_steps, source),
        **changes,
    )


def resample_steps(computed: Sequence[int] | npt.NDArray[np.intp], steps: int, new_steps: int) -> list[int]:
    """Transfer the steps at which one site recomputes to another number of steps.

    The number of recomputations is scaled and rounded, half up, and is at least one. Between two recomputations the
    site's density is that of the nearer neighbours. So a run that ends in a long pause ends at the same relative time,
    and regular intervals stay regular.

    Args:
        computed: steps that recompute, in ascending order, starting with 0.
        steps: total number of steps.
        new_steps: total number of steps afterwards.

    >>> resample_steps([0, 3, 6, 9], 12, 18), resample_steps([0, 1, 2, 3], 12, 18)
    ([0, 3, 6, 9, 12, 15], [0, 1, 2, 3, 4, 5])
    """
    count, old = _scaled(len(computed), steps, new_steps), len(computed)
    start = np.asarray(computed, dtype=np.int64)
    gap = np.diff(start, append=steps)
    # How far a recomputation's share of density extends beyond it.
    reach = np.minimum(gap, np.concatenate([gap[:1], gap[:-1]]))
    # The j-th new recomputation is number j * old / count of the old ones; whole numbers, so that halves are exact.
    order = np.arange(count)
    index, rest = np.divmod(order * old, count)
    numerator, denominator = new_steps * (start[index] * count + reach[index] * rest), steps * count
    nearest = (2 * numerator + denominator) // (2 * denominator)
    # Rounding may put two at one step. The later one takes the next step, which always exists.
    distinct = np.maximum.accumulate(nearest - order) + order
    return list(map(int, distinct))


def _resample_steps(recompute: npt.NDArray[np.bool_], new_steps: int) -> npt.NDArray[np.bool_]:
    steps, num_sites = recompute.shape
    resampled = np.zeros((new_steps, num_sites), dtype=bool)
    for site in range(num_sites):
        # The first step always computes.
        computed = np.union1d([0], recompute[:, site].nonzero()[0])
        resampled[resample_steps(computed, steps, new_steps), site] = True
    return resampled


def _scaled(count: int, steps: int, new_steps: int) -> int:
    """Scale a number of steps to another total, rounded half up, at least one."""
    return max(1, (2 * count * new_steps + steps) // (2 * steps))


def _blocks_at_equal_depth(sites: Sites, new_sites: Sites) -> dict[str, str]:
    """Map each new block to the old block with the same components and the nearest relative depth (0 first, 1 last)."""
    if sites == new_sites:
        return {block: block for block, _ in sites}
    old, new = _by_components(sites), _by_components(new_sites)
    source = {}
    for components, blocks in new.items():
        if components not in old:
            found = "; ".join(map(", ".join, old))
            expected = ", ".join(components)
            raise ScheduleError("no block has the same components", block=blocks[0], expected=expected, found=found)
        last, old_last = max(len(blocks) - 1, 1), len(old[components]) - 1
        for i, block in enumerate(blocks):
            source[block] = old[components][(2 * i * old_last + last) // (2 * last)]
    return source


def _by_components(sites: Sites) -> dict[tuple[str, ...], list[str]]:
    blocks: dict[tuple[str, ...], list[str]] = {}
    for block, components in by_block(sites):
        blocks.setdefault(tuple(components), []).append(block)
    return blocks


def _custom_compute(
    schedule: CacheSchedule, new_steps: int, source: Mapping[str, str]
) -> dict[tuple[int, str, str], dict[str, object]]:
    """TGATE's entries with the gate at the same relative time. Other computations cannot be transferred."""
    steps = schedule.num_steps
    scaled: dict[tuple[str, str], dict[str, object]] = {}
    for (step, block, key), entry in schedule.custom_compute.items():
        if step >= steps:
            continue
        position = {"step": f"{step:03d}", "block": block, "component": key}
        gate = tgate.entry_gate(entry)
        if gate is None:
            expected, found = f"{tgate.NAME} with {tgate.GATE} only", plain.show(plain.thaw(entry))
            raise ScheduleError("cannot be resampled", **position, expected=expected, found=found)
        if any(schedule.custom_compute.get((i, block, key)) != entry for i in range(steps)):
            raise ScheduleError("cannot be resampled", **position, expected="one entry at all steps", found="several")
        scaled[block, key] = tgate.gate_entry(_scaled_gate(gate, steps, new_steps))
    return {
        (step, block, key): entry
        for step in range(new_steps)
        for block, old in source.items()
        for (old_block, key), entry in scaled.items()
        if old_block == old
    }


def _resampled_config(schedule: CacheSchedule, new_steps: int) -> dict[str, object]:
    """The config, with noise levels and the gate of a TGATE pipeline at the same relative times."""
    config: dict[str, Any] = plain.thaw(schedule.config)
    if (sigmas := sigmas_of(schedule)) is not None:
        config[SIGMAS] = resampled_sigmas(sigmas, new_steps)
    gate = tgate.pipeline_gate(config)
    if gate is not None:
        config = tgate.with_pipeline_gate(config, _scaled_gate(gate, schedule.num_steps, new_steps))
    return config


def _scaled_gate(gate: int, steps: int, new_steps: int) -> int:
    return _scaled(gate, steps, new_steps) if gate else 0
