"""What is searched: schedules of one model, and what each costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from ecad.errors import ScheduleError
from ecad.runtime.families import readers
from ecad.runtime.plan import executed
from ecad.schedules import CacheSchedule
from ecad.schedules.schedule import Bits

Unit = Literal["MACs", "ns"]


@dataclass(frozen=True, eq=False)
class Problem:
    """All schedules of one model at one number of steps.

    Args:
        template: any schedule of the model; every candidate has its steps, sites and config, and forecasts if it does.
        price: cost of one image under each of many schedules: bool (n, steps, sites) -> int64 (n,).
        unit: of the cost, "MACs" or "ns".
        reusable: bool (sites,), which sites may be reused at all, for instance `cost.memory.sites_within` a limit; by
            default all of them.

    >>> from ecad.cost.architectures import find_architecture
    >>> from ecad.cost.macs import macs_table
    >>> from ecad.schedules import heuristics, pixart_sites
    >>> table = macs_table(find_architecture("PixArtAlphaImageGenerator"), "linear")
    >>> problem = Problem(heuristics.none(pixart_sites(28), 20), table.price)
    >>> problem.shape, problem.uncached_cost
    ((20, 84), 5713796136960)
    """

    template: CacheSchedule
    price: Callable[[Bits], np.ndarray]
    unit: Unit = "MACs"
    reusable: np.ndarray | None = None

    def forecasting(self) -> Problem:
        """The same problem, of schedules that forecast."""
        return replace(self, template=self.template.replace(forecast=True))

    @property
    def shape(self) -> tuple[int, int]:
        """Steps and sites."""
        return self.template.num_steps, len(self.template.sites)

    @cached_property
    def uncached_cost(self) -> int:
        """Cost of an image that recomputes everything."""
        return int(self.price(np.ones((1, *self.shape), dtype=bool))[0])

    def plans(self, bits: Bits) -> Bits:
        """The canonical bits of each schedule: those calls that really compute. One plan, one table of bits.

        Args:
            bits: bool (n, steps, sites).

        Returns:
            a new bool array of that shape; its first row is all True.
        """
        return executed(bits if self.reusable is None else bits | ~self.reusable, self._readers)

    def bits(self, schedule: CacheSchedule) -> Bits:
        """The bits of a schedule from elsewhere; raises ScheduleError if it is for another model or number of steps."""
        if schedule.sites != self.template.sites or schedule.num_steps != self.shape[0]:
            raise ScheduleError(
                f"schedule {schedule.name!r} does not fit this search",
                expected=_described(self.template),
                found=_described(schedule),
            )
        return schedule.recompute

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What a study must not mix, as JSON values; the two costs tell one price list from another."""
        cheapest = self.price(np.zeros((1, *self.shape), dtype=bool))
        unit = {} if self.unit == "MACs" else {"unit": self.unit}
        return {
            **unit,
            **({"forecast": True} if self.template.forecast else {}),
            **({} if self.reusable is None else {"reusable": self.reusable.astype(int).tolist()}),
            "steps": self.shape[0],
            "sites": [list(site) for site in self.template.sites],
            "config": self.template.to_json()["config"],
            "uncached_cost": self.uncached_cost,
            "cheapest_cost": int(cheapest[0]),
        }

    @cached_property
    def _readers(self) -> np.ndarray:
        return readers(self.template.sites)


def _described(schedule: CacheSchedule) -> str:
    return f"{schedule.num_steps} steps of {len(schedule.sites)} sites ({', '.join(schedule.components)})"
