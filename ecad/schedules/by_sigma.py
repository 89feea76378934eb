"""Whole steps of a schedule by noise level, which transfer to other samplers and numbers of steps. Pure numpy.

`config.sigmas` of a schedule holds the noise levels at which its rows call the denoiser: the standard deviation of the
noise relative to the image (samplers for SD and SDXL), or the fraction of noise (flow matching: FLUX, SD3). Diffusers
and ComfyUI call them the sampler's `sigmas`.

The rule for a run at other noise levels:

- The *position* of a noise level is its row in the schedule, interpolated by the logarithm of sigma.
- The run computes as densely as the schedule does around each position: the number of rows that the schedule computes
  there, times the number of the run's rows per row of the schedule. The first row of the run always computes.
- An extrapolation is fitted with the schedule's output products at three positions: the step and the last two outputs.

A run at the schedule's own noise levels computes the schedule's own rows, and only there its output weights, which were
fitted to them, are used. A schedule without noise levels is resampled to the run's number of rows
(`CacheSchedule.resample`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ecad.errors import ScheduleError
from ecad.schedules import json_values as plain
from ecad.schedules.forecast import Ahead, fitted
from ecad.schedules.output_products import Products, products_at
from ecad.schedules.output_weights import OutputWeights
from ecad.sites.names import DENOISER_SITES

if TYPE_CHECKING:
    from ecad.schedules.schedule import CacheSchedule

Sigmas = npt.NDArray[np.float64]

KEY = "sigmas"
# Samplers round a noise level on its way to the denoiser.
_ROUNDING = 1e-4
# Noise levels that are this close are those of one sampler and scheduler.
_SAME = 1e-3


@dataclass(frozen=True, eq=False)
class StepsBySigma:
    """Which steps a run computes, and how it extrapolates the others, by the noise level of a call.

    Args:
        sigmas: float (rows,), the noise levels of the run's rows, descending.
        computed: bool (rows,), which rows compute; the first is True.
        forecast: whether outputs are extrapolated; otherwise the last one is repeated.
        grid: float (steps,), the noise levels of the rows of `products`.
        products: float (steps, steps), as in `CacheSchedule.output_products`; None if unknown.
        weights: a row of `CacheSchedule.output_weights` for each row of the run; or None.
    """

    sigmas: Sigmas
    computed: npt.NDArray[np.bool_]
    forecast: bool
    grid: Sigmas
    products: Products | None
    weights: OutputWeights | None

    def row(self, sigma: float) -> int:
        """The row that a call belongs to: the last one that begins at this noise level or above, or else the first."""
        return max(int((self.sigmas >= sigma * (1 - _ROUNDING)).sum()) - 1, 0)

    def computes(self, sigma: float) -> bool:
        """Whether the denoiser runs at this noise level."""
        return bool(self.computed[self.row(sigma)])

    def keeps(self, sigma: float) -> bool:
        """Whether a later row needs an output that is computed at this noise level."""
        return self.weights is not None or not self.computed[self.row(sigma) + 1 :].all()

    def ahead(self, sigma: float, outputs: Sequence[float]) -> Ahead:
        """What is used as the denoiser's output at a noise level.

        Args:
            sigma: the noise level.
            outputs: noise levels of the last computed outputs, newest first, at least one; including this one if it
                was computed.
        """
        row = self.row(sigma)
        if self.weights is not None and abs(self.sigmas[row] - sigma) <= _ROUNDING * sigma:
            weighed = Ahead(*self.weights[row])
            if weighed.depth <= len(outputs):
                return weighed
        if outputs[0] == sigma or not self.forecast or self.computed.sum() < 2:
            return Ahead()
        levels = [sigma, *outputs[:2]]
        if self.products is not None:
            products = products_at(self.products, positions_of(levels, self.grid))
            return fitted(products, 0, 1, 2 if len(levels) == 3 else None)
        positions = positions_of(levels, self.sigmas)
        return (
            Ahead()
            if len(levels) < 3 or positions[1] == positions[2]
            else Ahead(1.0, float(1 / (positions[1] - positions[2])))
        )


def by_sigma(schedule: CacheSchedule, sigmas: Sequence[float] | npt.NDArray[np.float64]) -> StepsBySigma:
    """Transfer the whole steps of a schedule to the noise levels of a run, by the rule above.

    A row that computes any site computes the whole denoiser.

    Args:
        schedule: the schedule, with or without noise levels.
        sigmas: float (rows + 1,), descending: where each row of the run begins, and where the last one ends.

    Raises:
        ScheduleError: noise levels do not descend, or the schedule's are not one per row.

    >>> from ecad.schedules import CacheSchedule
    >>> bits = [[True], [True], [False], [True], [False], [True]]
    >>> found = CacheSchedule(bits, [("denoiser", "output")], config={"sigmas": [32, 16, 8, 4, 2, 1]})
    >>> by_sigma(found, [32, 16, 8, 4, 2, 1, 0]).computed.astype(int).tolist()
    [1, 1, 0, 1, 0, 1]
    >>> by_sigma(found, [32, 8, 2, 0]).computed.astype(int).tolist()
    [1, 0, 1]
    """
    levels = np.asarray(sigmas, dtype=np.float64)
    if levels.ndim != 1 or len(levels) < 2 or not _descend(levels[:-1]) or not 0 <= levels[-1] < levels[-2]:
        expected = "at least two numbers, descending, none but the last 0"
        raise ScheduleError("not the noise levels of a run", expected=expected, found=plain.show(levels.tolist()))
    rows, grid = levels[:-1], sigmas_of(schedule)
    if grid is None:
        schedule = schedule.resample(len(rows))
        computed, grid, weights = _whole_steps(schedule), rows, schedule.output_weights
    else:
        computed = _carried(_whole_steps(schedule), positions_of(levels, grid))
        weights = schedule.output_weights if _same(rows, grid) else None
    return StepsBySigma(rows, computed, schedule.forecast, grid, schedule.output_products, weights)


def at_sigmas(schedule: CacheSchedule, sigmas: Sequence[float] | npt.NDArray[np.float64]) -> CacheSchedule:
    """A schedule of whole steps for another sampler or number of steps, by the rule above.

    Args:
        schedule: of whole steps: each recomputes all sites or none.
        sigmas: float (rows + 1,), as for `by_sigma`.

    Returns:
        this schedule itself at its own noise levels; else one of as many steps as the run has rows, which says its
        noise levels, and says like `CacheSchedule.resample` what it was made of.

    Raises:
        ScheduleError: as `by_sigma` does, or some step recomputes a part of the sites only.

    >>> from ecad.schedules import CacheSchedule
    >>> found = CacheSchedule([[True], [True], [False]], [("denoiser", "output")], config={"sigmas": [4, 2, 1]})
    >>> at_sigmas(found, [4, 3, 2, 1, 0.5, 0]).recompute[:, 0].astype(int).tolist()
    [1, 1, 1, 0, 0]
    """
    parts = np.asarray(schedule.recompute.any(axis=1) & ~schedule.recompute.all(axis=1))
    if parts[1:].any():
        raise ScheduleError(
            f"schedule {schedule.name!r} cannot be carried to other noise levels",
            step=f"{int(parts[1:].argmax()) + 1:03d}",
            expected="steps that recompute all sites or none",
            found="some of each",
        )
    steps = by_sigma(schedule, sigmas)
    grid = sigmas_of(schedule)
    if grid is None or _same(steps.sigmas, grid):
        return schedule.resample(len(steps.sigmas))
    products = None if steps.products is None else products_at(steps.products, positions_of(steps.sigmas, grid))
    resampled = schedule.resample(len(steps.sigmas))
    return schedule.replace(
        recompute=np.repeat(steps.computed[:, None], len(schedule.sites), axis=1),
        name=f"{schedule.name}_at_{len(steps.sigmas)}_noise_levels",
        output_products=products,
        output_weights=None,
        config={**plain.thaw(schedule.config), KEY: steps.sigmas.tolist()},
        metrics={},
        attributes=resampled.attributes if resampled is not schedule else {},
        spare=schedule.spare[:0],
        custom_compute={},
    )


def as_whole_steps(schedule: CacheSchedule) -> CacheSchedule:
    """A schedule's whole steps, for any denoiser: a step that recomputes any site computes it.

    >>> from ecad.schedules import heuristics, pixart_sites
    >>> as_whole_steps(heuristics.every_n(pixart_sites(2), 4, 2)).recompute[:, 0].astype(int).tolist()
    [1, 0, 1, 0]
    """
    if schedule.sites == DENOISER_SITES:
        return schedule
    return schedule.replace(
        recompute=_whole_steps(schedule)[:, None],
        sites=DENOISER_SITES,
        output_weights=schedule.output_weights,
        metrics={},
        attributes={},
        spare=schedule.spare[:0, :1],
        custom_compute={},
    )


def sigmas_of(schedule: CacheSchedule) -> Sigmas | None:
    """The noise levels of a schedule's rows from its config; None if it has none.

    Raises:
        ScheduleError: they are not descending positive numbers, one per row.
    """
    return checked_sigmas(schedule.config, schedule.num_steps)


def checked_sigmas(config: Mapping[str, object], steps: int) -> Sigmas | None:
    """Like `sigmas_of`, for a config and a number of steps."""
    values = config.get(KEY)
    if values is None:
        return None
    numbers = isinstance(values, (list, tuple)) and all(isinstance(x, (int, float)) for x in values)
    levels = np.asarray(values if numbers else [], dtype=np.float64)
    if len(levels) != steps or not _descend(levels):
        raise plain.fault(
            "not the noise levels of a schedule",
            ("config", KEY),
            expected=f"{steps} positive numbers, descending",
            found=plain.show(plain.thaw(values)),
        )
    return levels


def resampled_sigmas(grid: Sigmas, new_steps: int) -> list[float]:
    """The noise levels of a resampled schedule, at the same relative times; interpolated by the logarithm."""
    steps = len(grid)
    positions = np.arange(new_steps) * (steps / new_steps)
    inside = np.exp(np.interp(positions, np.arange(steps), np.log(grid)))
    found = np.where(positions > steps - 1, grid[-1] * (steps - positions), inside)
    return [float(level) for level in found]


def positions_of(sigmas: Sequence[float] | Sigmas, grid: Sigmas) -> npt.NDArray[np.float64]:
    """The positions of noise levels among a schedule's: 0 at its first level and above, its number of rows at sigma 0.

    >>> positions_of([64.0, 16.0, 4.0, 1.0, 0.5, 0.0], np.array([16.0, 1.0])).tolist()
    [0.0, 0.0, 0.5, 1.0, 1.5, 2.0]
    """
    levels = np.asarray(sigmas, dtype=np.float64)
    last = len(grid) - 1
    inside = np.interp(-np.log(np.maximum(levels, grid[-1])), -np.log(grid), np.arange(len(grid)))
    return np.asarray(np.where(levels < grid[-1], last + 1 - levels / grid[-1], inside))


def _whole_steps(schedule: CacheSchedule) -> npt.NDArray[np.bool_]:
    computed = np.asarray(schedule.recompute.any(axis=1))
    computed[0] = True
    return computed


def _carried(computed: npt.NDArray[np.bool_], positions: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which rows of a run compute.

    Args:
        computed: bool (steps,), of the schedule.
        positions: float (rows + 1,), of the run's rows and of its end.
    """
    start = computed.nonzero()[0]
    gap = np.diff(start, append=len(computed))
    # As in `resample_steps`: how far a computed step's share of density extends beyond it.
    reach = np.minimum(gap, np.concatenate([gap[:1], gap[:-1]]))
    rows, (first, end) = len(positions) - 1, positions[[0, -1]]
    from_count, to_count = (_counted(position, start, reach) for position in (first, end))
    density = rows / max(end - first, np.finfo(np.float64).tiny)
    count = int(np.clip(np.floor((to_count - from_count) * density + 0.5 + 1e-9), 1, rows))
    index, rest = np.divmod(from_count + np.arange(count) * (to_count - from_count) / count, 1)
    index = np.minimum(index.astype(np.intp), len(start) - 1)
    targets = start[index] + reach[index] * rest
    middles = (positions[:-2] + positions[1:-1]) / 2
    nearest = np.searchsorted(middles, targets + 1e-9, side="right")
    nearest[0] = 0
    order = np.arange(count)
    # If two fall on one row, the later one takes the next row.
    distinct = np.minimum(np.maximum.accumulate(nearest - order), rows - count) + order
    carried = np.zeros(rows, dtype=bool)
    carried[distinct] = True
    return carried


def _counted(position: float, start: npt.NDArray[np.intp], reach: npt.NDArray[np.intp]) -> float:
    """The number of steps that a schedule has computed up to a position, with fractions."""
    index = int(np.searchsorted(start, position, side="right")) - 1
    return float(index + min((position - start[index]) / reach[index], 1.0))


def _same(rows: Sigmas, grid: Sigmas) -> bool:
    return len(rows) == len(grid) and bool(np.allclose(rows, grid, rtol=_SAME, atol=0))


def _descend(levels: Sigmas) -> bool:
    return bool(np.isfinite(levels).all() and (levels > 0).all() and (np.diff(levels) < 0).all())
