"""One process's share of a study: generations, progress and limits."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ecad.errors import EcadError
from ecad.genetic.algorithms.nsga2 import Nsga2
from ecad.genetic.algorithms.surrogate_search import Fast
from ecad.genetic.evaluation.evaluator import Evaluator, evaluate_each, why_given_up
from ecad.genetic.problem import Problem
from ecad.genetic.study.store import Store
from ecad.genetic.study.study import Candidate, name_of
from ecad.schedules.schedule import Bits
from ecad.utils.pareto import hypervolume, pareto


@dataclass(frozen=True)
class Progress:
    """Where a search stands after a candidate.

    Args:
        generation: which it is in, from 0.
        evaluated: candidates so far.
        front_size: those that nothing evaluated so far beats.
        hypervolume: the area they dominate, as in `study.Generation`.
        images: made since the study began.
        seconds: spent since the study began.
        seconds_left: an estimate; None without a limit.
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
    """One process's share of a study."""

    problem: Problem
    evaluator: Evaluator
    store: Store
    folder: Path | None
    max_seconds: float | None
    on_progress: Callable[[Progress], None] | None

    def __post_init__(self) -> None:
        self.front_cost, self.front_quality = np.zeros(0, dtype=np.int64), np.zeros(0)
        self.worst_quality = np.inf
        self.evaluated = self.new = 0
        self.before = sum(row.seconds for row in self.store.generations())
        self.began = self.mark = time.monotonic()

    def generations(self, algorithm: Nsga2 | Fast, most: int | None, population_size: int) -> None:
        """Search in generations until there were so many, nothing is left to try, or the time is over."""
        for number in itertools.count() if most is None else range(most):
            later = None if most is None else (most - number - 1) * population_size
            if not self._generation(algorithm, number, later):
                return

    def _generation(self, algorithm: Nsga2 | Fast, number: int, later: int | None) -> bool:
        """Ask for a generation, evaluate what the study does not know of it, tell; False if the search is over.

        `later` is how many candidates will follow it, if that is known.
        """
        bits = algorithm.ask()
        if not len(bits):
            return False
        cost = self.problem.costs(bits)
        quality = self.store.begin(number, bits, cost, algorithm.random_state)
        todo = np.flatnonzero(np.isnan(quality)).tolist()
        self.count(number, cost, quality)
        schedules = [self.problem.schedule(bits[i], name_of(number, i)) for i in todo]
        results = evaluate_each(self.evaluator, schedules, self.store, number)
        for place, i in enumerate(todo, start=1):
            if self.is_late():
                return False
            quality[i] = next(results).mean()
            left = None if later is None else len(todo) - place + later
            self.close(number, i, bits[i], int(cost[i]), float(quality[i]), left)
        if np.isnan(quality).all():
            reason = next(filter(None, (why_given_up(self.evaluator, one, self.store) for one in schedules)), "")
            raise EcadError(f"no candidate of generation {number} could be evaluated; the first: {reason}")
        algorithm.tell(cost, quality)
        return True

    def close(self, generation: int, number: int, bits: Bits, cost: int, quality: float, left: int | None) -> None:
        """Keep what a candidate is worth, NaN if it was given up; `left` is how many are still to come, if known."""
        if not np.isnan(quality):
            plain = self.problem.schedule(bits, name_of(generation, number))
            self._keep(Candidate(generation, number, plain, cost, quality, self.problem.unit))
        self.count(generation, np.array([cost]), np.array([quality]))
        self.new += 1
        self._report(generation, left)

    def _keep(self, candidate: Candidate) -> None:
        # The file first: whatever the store calls complete has one.
        if self.folder is not None:
            candidate.schedule.save(self.folder / candidate.path)
        now = time.monotonic()
        self.store.complete(candidate.generation, candidate.number, candidate.quality, now - self.mark)
        self.mark = now

    def count(self, number: int, cost: np.ndarray, quality: np.ndarray) -> None:
        """Reckon with candidates of a generation, cost (n,) and quality (n,); NaN is not known, or never will be."""
        known = ~np.isnan(quality)
        cost, quality = cost[known], quality[known]
        self.evaluated += len(cost)
        if number == 0:
            self.worst_quality = min(self.worst_quality, quality.min(initial=np.inf))
        cost, quality = np.append(self.front_cost, cost), np.append(self.front_quality, quality)
        front = pareto(cost, quality)
        self.front_cost, self.front_quality = cost[front], quality[front]

    def is_late(self) -> bool:
        """Whether the time for the study is over."""
        return self.max_seconds is not None and self._seconds() >= self.max_seconds

    def _seconds(self) -> float:
        return self.before + time.monotonic() - self.began

    def _report(self, number: int, candidates_left: int | None) -> None:
        if self.on_progress is None:
            return
        area = hypervolume(self.front_cost, self.front_quality, self.problem.uncached_cost, self.worst_quality)
        images = sum(row.images for row in self.store.generations())
        seconds = self._seconds()
        left = []
        if candidates_left is not None:
            left.append((time.monotonic() - self.began) / self.new * candidates_left)
        if self.max_seconds is not None:
            left.append(max(self.max_seconds - seconds, 0.0))
        self.on_progress(
            Progress(number, self.evaluated, len(self.front_cost), area, images, seconds, min(left, default=None))
        )
