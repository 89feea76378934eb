"""Searches several numbers of steps against one reference, so that fewer steps compete with reuse on one front."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ecad.errors import EcadError
from ecad.genetic.budget import Budget
from ecad.genetic.evaluation.workers import SearchSetup
from ecad.genetic.run import Progress
from ecad.genetic.search import search
from ecad.genetic.study.layout import study_folder
from ecad.genetic.study.study import Candidate, Study
from ecad.schedules import CacheSchedule
from ecad.utils.pareto import pareto


@dataclass(frozen=True)
class Searched:
    """A finished search.

    Args:
        setup: what was searched.
        study: what was found.
        folder: of the study.
        prefix: of its candidates' names; empty for the only search.
    """

    setup: SearchSetup
    study: Study
    folder: Path
    prefix: str

    def candidates(self) -> list[Candidate]:
        """Its candidates within the search's limits, with names that no other search's have."""
        return [
            replace(one, plain=one.plain.replace(name=f"{self.prefix}{one.name}")) for one in self.study.within_limits()
        ]


def search_each(
    setups: Sequence[SearchSetup],
    folder: Path,
    budget: Budget,
    *,
    target_speedup: float | None = None,
    initial: Callable[[SearchSetup], Sequence[CacheSchedule]] = lambda setup: (),
    on_progress: Callable[[SearchSetup, Progress], None] | None = None,
    **options: Any,
) -> list[Searched]:
    """Search every number of steps, one after the other, each with its part of the budget.

    Args:
        setups: one per number of steps, as `search_setup` gives them.
        folder: of the study; of several, their studies are in its folders `steps_NNN`.
        budget: seconds and images are of all searches together, generations and patience of each.
        target_speedup: how many times less than an uncached image of the most steps a schedule costs at least.
        initial: the first candidates of a search.
        on_progress: called after each new candidate.
        options: further arguments of `search`.

    Returns:
        the searches, in the order of `setups`.

    Raises:
        EcadError: as `search` does, or no schedule reaches the speed-up.
    """
    steps, own = [setup.steps for setup in setups], part_of(budget, len(setups))
    whole = max(setup.problem.uncached_cost for setup in setups)
    found = []
    for setup in setups:
        place = study_folder(folder, steps, setup.steps)
        study = search(
            setup.problem,
            setup.evaluator(0),
            place,
            **asdict(own),
            max_cost=max_cost(setup, whole, target_speedup),
            initial=initial(setup),
            on_progress=None if on_progress is None else partial(on_progress, setup),
            **options,
        )
        found.append(Searched(setup, study, place, f"steps_{setup.steps:03d}_" if len(setups) > 1 else ""))
    return found


def part_of(budget: Budget, searches: int) -> Budget:
    """The part of a budget that each of several searches has."""
    return replace(
        budget,
        max_seconds=None if budget.max_seconds is None else budget.max_seconds / searches,
        max_images=None if budget.max_images is None else budget.max_images // searches,
    )


def max_cost(setup: SearchSetup, whole: int, target_speedup: float | None) -> float | None:
    """The largest cost that reaches a speed-up.

    Args:
        setup: of one number of steps.
        whole: the cost of an uncached image of the most steps.
        target_speedup: as for `search_each`.

    Raises:
        EcadError: no schedule reaches it.
    """
    if target_speedup is None:
        return None
    most = whole / target_speedup
    if most < setup.problem.cheapest_cost:
        fastest = whole / setup.problem.cheapest_cost
        raise EcadError(
            f"`target_speedup` {target_speedup:g}: no schedule of {setup.steps} steps reaches it; the largest "
            f"reduction is {fastest:.2f}x"
        )
    return most


def uncached_cost(searched: Sequence[Searched]) -> int:
    """The cost of an uncached image of the most steps."""
    return max(one.study.uncached_cost for one in searched)


def joint_candidates(searched: Sequence[Searched]) -> list[Candidate]:
    """The candidates of all searches."""
    return [candidate for one in searched for candidate in one.candidates()]


def joint_front(searched: Sequence[Searched]) -> list[Candidate]:
    """The Pareto front of all searches together, by the search's prompts, cheapest first."""
    known = joint_candidates(searched)
    quality = np.array([one.quality for one in known], dtype=np.float64)
    return [known[i] for i in pareto(np.array([one.cost for one in known]), quality)]


def owner_of(searched: Sequence[Searched], candidate: Candidate) -> Searched:
    """The search that found a candidate, which its number of rows tells."""
    return next(one for one in searched if one.setup.problem.shape[0] == candidate.plain.num_steps)
