"""What is searched: schedules of one model, and what each costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from ecad.errors import ScheduleError
from ecad.genetic.genes import Forecast, _computing, bits_of, schedule_of
from ecad.schedules import CacheSchedule
from ecad.schedules.plan import executed, forecast_matters
from ecad.schedules.schedule import Bits
from ecad.sites.readers import readers

Unit = Literal["MACs", "ns"]


@dataclass(frozen=True, eq=False)
class Problem:
    """All schedules of one model at one number of steps.

    Args:
        template: any schedule of the model; every candidate has its steps, sites and config, and if it forecasts its
            output products.
        price: cost of one image under each of many schedules: bool (n, steps, sites), bool (n,) whether they forecast
            -> int64 (n,).
        unit: of the cost, "MACs" or "ns".
        forecast: whether schedules do: never, always, or some; then bits whose first row is False stand for one that
            does.
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
    price: Callable[[Bits, np.ndarray], np.ndarray]
    unit: Unit = "MACs"
    forecast: Forecast = "never"
    reusable: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Steps and sites."""
        return self.template.num_steps, len(self.template.sites)

    @cached_property
    def uncached_cost(self) -> int:
        """Cost of an image that recomputes everything."""
        return int(self.costs(np.ones((1, *self.shape), dtype=bool))[0])

    def costs(self, bits: Bits) -> np.ndarray:
        """What an image costs under each of some schedules: bool (n, steps, sites) -> int64 (n,)."""
        if self.forecast == "either":
            return self.price(_computing(bits), ~bits[:, 0, 0])
        return self.price(bits, np.full(len(bits), self.forecast == "always"))

    def schedule(self, bits: Bits, name: str) -> CacheSchedule:
        """The schedule that bits, bool (steps, sites), stand for."""
        return schedule_of(bits, self.template.replace(name=name), self.forecast)

    def plans(self, bits: Bits) -> Bits:
        """The canonical bits of each schedule: those calls that really compute. One plan, one table of bits.

        Args:
            bits: bool (n, steps, sites).

        Returns:
            a new bool array of that shape; its first row is all True, or all False if the schedule is one of some that
            forecast, and if that changes anything.
        """
        plans = executed(bits if self.reusable is None else bits | ~self.reusable, self._readers)
        if self.forecast == "either":
            plans[:, 0] = bits[:, 0, :1] | ~forecast_matters(plans, self._readers)[:, None]
        return plans

    def bits(self, schedule: CacheSchedule) -> Bits:
        """The bits of a schedule from elsewhere; raises ScheduleError if it is for another model or number of steps."""
        if schedule.sites != self.template.sites or schedule.num_steps != self.shape[0]:
            raise ScheduleError(
                f"schedule {schedule.name!r} does not fit this search",
                expected=_described(self.template),
                found=_described(schedule),
            )
        return bits_of(schedule, self.forecast)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What a study must not mix, as JSON values; the two costs tell one price list from another."""
        cheapest = self.costs(np.zeros((1, *self.shape), dtype=bool))
        unit = {} if self.unit == "MACs" else {"unit": self.unit}
        return {
            **unit,
            **({} if self.forecast == "never" else {"forecast": self.forecast}),
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
