"""A schedule compiled for one denoiser, once, however many generations follow it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ecad.errors import ScheduleError
from ecad.runtime.passes import PlanRows
from ecad.runtime.tgate import gates_of, one_half_from
from ecad.schedules import CacheSchedule
from ecad.schedules.forecast import Ahead, forecasts
from ecad.schedules.plan import executed, make_plan
from ecad.sites.discovery import Site
from ecad.sites.readers import readers


class PlannedSchedule:
    """What a schedule means for each row of a denoiser.

    Args:
        schedule: must name exactly the denoiser's sites, in any order.
        sites: of the denoiser.
        model: the denoiser's class, for messages.

    Attributes:
        gates: row -> sites whose kept outputs TGATE averages there.
        one_half_from: the row from which TGATE runs half of the batch; None if it never does.

    Raises:
        ScheduleError: the schedule's sites are not the denoiser's.
    """

    def __init__(self, schedule: CacheSchedule, sites: Sequence[Site], model: str) -> None:
        self.schedule = schedule
        names = [(site.block, site.component) for site in sites]
        self._order = order_of(schedule, sites, model)
        self._readers = readers(names)
        gates = gates_of(schedule)
        self.gates = {step: [names.index(site) for site in gated] for step, gated in gates.items()}
        self.one_half_from = one_half_from(schedule, gates)
        self._rows_from: dict[int, PlanRows] = {}
        self.rows(0)  # not while somebody waits for the first image

    def rows(self, first: int) -> PlanRows:
        """The plan of a pass that begins in a row.

        Args:
            first: that row.
        """
        if first not in self._rows_from:
            recompute, ahead = self.schedule.recompute[first:, self._order], self._ahead(first)
            depth = np.array([one.depth for one in ahead])
            self._rows_from[first] = PlanRows(make_plan(recompute, self._readers, self.schedule.forecast, depth), ahead)
        return self._rows_from[first]

    def _ahead(self, first: int) -> list[Ahead]:
        """`forecasts` of a generation that begins at a row."""
        schedule, products = self.schedule, self.schedule.output_products
        runs = np.asarray(executed(schedule.recompute[first:, self._order], self._readers).any(axis=1))
        # Weights are right for what ran before, products for any beginning.
        weights = None if first else schedule.output_weights
        return forecasts(runs.tolist(), None if products is None else products[first:, first:], weights)


def order_of(schedule: CacheSchedule, sites: Sequence[Site], model: str) -> np.ndarray:
    """Where each of the denoiser's sites stands in the schedule: int (sites,).

    Args:
        schedule, sites, model: as for `PlannedSchedule`.

    Raises:
        ScheduleError: the schedule's sites are not the denoiser's.
    """
    index = {site: position for position, site in enumerate(schedule.sites)}
    expected = {(site.block, site.component): None for site in sites}
    odd = [site for site in expected if site not in index] or [site for site in index if site not in expected]
    if odd:
        block, component = odd[0]
        raise ScheduleError(
            f"schedule {schedule.name!r} does not fit {model}",
            block=block,
            component=component,
            expected=_block(block, expected),
            found=_block(block, index),
            remedy="use one that was made for this model, or start one with CacheSchedule.for_model",
        )
    return np.array([index[site] for site in expected], dtype=np.intp)


def _block(block: str, sites: Iterable[tuple[str, str]]) -> str:
    blocks: dict[str, list[str]] = {}
    for name, component in sites:
        blocks.setdefault(name, []).append(component)
    return f"{', '.join(blocks.get(block, ['no such block']))} among {len(blocks)} blocks"
