"""One process's run of a search: generations, progress and the time limit."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ecad.errors import EcadError
from ecad.genetic.budget import Budget
from ecad.genetic.evaluation.evaluator import Evaluator, evaluate_each, failure_reason
from ecad.genetic.problem import Problem
from ecad.genetic.study.store import Store
from ecad.genetic.study.study import Candidate, candidate_name
from ecad.schedules.schedule import Bits
from ecad.utils.pareto import hypervolume, pareto

if TYPE_CHECKING:
    from ecad.genetic.algorithms.nsga2 import Nsga2
    from ecad.genetic.algorithms.surrogate_search import SurrogateSearch


@dataclass(frozen=True)
class Progress:
    """The state of a search after a candidate.

    Args:
        generation: of the candidate, from 0.
        evaluated: candidates so far.
        front_size: non-dominated candidates so far.
        hypervolume: of the front, as in `study.Generation`.
        images: made since the study began.
        seconds: spent since the study began.
        seconds_left: estimate; None without a limit.
    """

    generation: int
    evaluated: int
    front_size: int
    hypervolume: float
    images: int
    seconds: float
    seconds_left: float | None


@dataclass
class Run:
    """One process's run of a search.

    Args:
        problem: the schedules and their costs.
        evaluator: makes and scores images.
        store: of the study.
        folder: of the study; None writes no candidate files.
        budget: when the search ends.
        on_progress: called after each new candidate.
    """

    problem: Problem
    evaluator: Evaluator
    store: Store
    folder: Path | None
    budget: Budget
    on_progress: Callable[[Progress], None] | None

    def __post_init__(self) -> None:
        self.front_cost, self.front_quality = np.zeros(0, dtype=np.int64), np.zeros(0)
        self.worst_quality = np.inf
        self.evaluated = self.new = 0
        self.seconds_before = sum(row.seconds for row in self.store.generations())
        self.began = self.mark = time.monotonic()

    def generations(self, algorithm: Nsga2 | SurrogateSearch, population_size: int) -> None:
        """Search until the budget is used up, nothing is left to try, or nothing improves."""
        most = self.budget.generations
        areas: list[float] = []
        for number in itertools.count() if most is None else range(most):
            later = None if most is None else (most - number - 1) * population_size
            if not self._generation(algorithm, number, later):
                return
            areas.append(self._hypervolume())
            if self.budget.is_stale(areas):
                return

    def _generation(self, algorithm: Nsga2 | SurrogateSearch, number: int, later: int | None) -> bool:
        """Ask for a generation, evaluate its unknown candidates and tell; return False if the search is over.

        `later` is the number of candidates in later generations, if known.
        """
        bits = algorithm.ask()
        if not len(bits):
            return False
        cost = self.problem.costs(bits)
        quality = self.store.begin(number, bits, cost, algorithm.random_state)
        todo = np.flatnonzero(np.isnan(quality)).tolist()
        self.update_front(number, cost, quality)
        schedules = [self.problem.schedule(bits[i], candidate_name(number, i)) for i in todo]
        results = evaluate_each(self.evaluator, schedules, self.store, number)
        for place, i in enumerate(todo, start=1):
            if self.is_over():
                return False
            quality[i] = next(results).mean()
            left = None if later is None else len(todo) - place + later
            self.complete(number, i, bits[i], int(cost[i]), float(quality[i]), left)
        if np.isnan(quality).all():
            reason = next(filter(None, (failure_reason(self.evaluator, one, self.store) for one in schedules)), "")
            raise EcadError(f"no candidate of generation {number} could be evaluated; the first: {reason}")
        algorithm.tell(cost, quality)
        return True

    def complete(self, generation: int, number: int, bits: Bits, cost: int, quality: float, left: int | None) -> None:
        """Store a candidate's quality (NaN if it was given up) and report progress.

        `left` is the number of candidates still to come, if known.
        """
        if not np.isnan(quality):
            plain = self.problem.schedule(bits, candidate_name(generation, number))
            self._store(Candidate(generation, number, plain, cost, quality, self.problem.unit))
        self.update_front(generation, np.array([cost]), np.array([quality]))
        self.new += 1
        self._report(generation, left)

    def _store(self, candidate: Candidate) -> None:
        # The file first: every candidate that the store calls complete has one.
        if self.folder is not None:
            candidate.schedule.save(self.folder / candidate.path)
        now = time.monotonic()
        self.store.complete(candidate.generation, candidate.number, candidate.quality, now - self.mark)
        self.mark = now

    def update_front(self, number: int, cost: np.ndarray, quality: np.ndarray) -> None:
        """Update the front with candidates of a generation: cost (n,), quality (n,), NaN where unknown or given up."""
        known = ~np.isnan(quality)
        cost, quality = cost[known], quality[known]
        self.evaluated += len(cost)
        if number == 0:
            self.worst_quality = min(self.worst_quality, quality.min(initial=np.inf))
        cost, quality = np.append(self.front_cost, cost), np.append(self.front_quality, quality)
        front = pareto(cost, quality)
        self.front_cost, self.front_quality = cost[front], quality[front]

    def is_over(self) -> bool:
        """Whether the study's time is used up, or its images do not suffice for another candidate."""
        seconds, images = self.budget.max_seconds, self.budget.max_images
        if seconds is not None and self._seconds() >= seconds:
            return True
        each = len(self.evaluator.prompts) * len(self.evaluator.seeds)
        return images is not None and self._images() + each > images

    def _images(self) -> int:
        return sum(row.images for row in self.store.generations())

    def _hypervolume(self) -> float:
        return hypervolume(self.front_cost, self.front_quality, self.problem.uncached_cost, self.worst_quality)

    def _seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.began

    def _report(self, number: int, candidates_left: int | None) -> None:
        if self.on_progress is None:
            return
        area, images, seconds = self._hypervolume(), self._images(), self._seconds()
        left = []
        if candidates_left is not None:
            left.append((time.monotonic() - self.began) / self.new * candidates_left)
        if self.budget.max_seconds is not None:
            left.append(max(self.budget.max_seconds - seconds, 0.0))
        if self.budget.max_images is not None and images:
            left.append(seconds / images * max(self.budget.max_images - images, 0))
        self.on_progress(
            Progress(number, self.evaluated, len(self.front_cost), area, images, seconds, min(left, default=None))
        )
