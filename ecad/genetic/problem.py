"""A search problem: the schedules of one model and what each costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from ecad.genetic.genes import SearchSpace, computing_first_step
from ecad.schedules.schedule import Bits

Unit = Literal["MACs", "ns"]


@dataclass(frozen=True, eq=False)
class Problem(SearchSpace):
    """A search space, and the cost of one image under each of its schedules.

    Args:
        template, forecast, reusable: as for `SearchSpace`; the last two by keyword.
        price: computes the cost of one image: bool (n, steps, sites), bool (n,) whether each schedule extrapolates ->
            int64 (n,).
        unit: of the cost, "MACs" or "ns".

    >>> from ecad.cost.architectures import find_architecture
    >>> from ecad.cost.macs import macs_table
    >>> from ecad.schedules import heuristics, pixart_sites
    >>> table = macs_table(find_architecture("PixArtAlphaImageGenerator"), "linear")
    >>> problem = Problem(heuristics.none(pixart_sites(28), 20), table.price)
    >>> problem.shape, problem.uncached_cost
    ((20, 84), 5713796136960)
    """

    price: Callable[[Bits, np.ndarray], np.ndarray]
    unit: Unit = "MACs"

    @cached_property
    def uncached_cost(self) -> int:
        """Cost of an image that recomputes everything."""
        return int(self.costs(np.ones((1, *self.shape), dtype=bool))[0])

    @cached_property
    def cheapest_cost(self) -> int:
        """Cost of an image that reuses as much as possible."""
        return int(self.costs(self.plans(np.zeros((1, *self.shape), dtype=bool)))[0])

    def costs(self, bits: Bits) -> np.ndarray:
        """The cost of one image under each schedule: bool (n, steps, sites) -> int64 (n,)."""
        if self.forecast == "either":
            return self.price(computing_first_step(bits), ~bits[:, 0, 0])
        return self.price(bits, np.full(len(bits), self.forecast == "always"))

    @cached_property
    def settings(self) -> dict[str, object]:
        """The JSON values that a study keeps and must not mix; its two costs identify the cost table."""
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
