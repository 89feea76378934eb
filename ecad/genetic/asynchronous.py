"""The asynchronous search: a worker gets a new batch as soon as it finishes one.

When all batches are handed out, the algorithm is asked for the next generation. Candidates that are still pending then
count with the quality that the surrogate predicts. So what is asked for depends on the workers' speed, and no two
studies are equal. As in any search, nothing is lost or counted twice when it is interrupted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ecad.errors import EcadError
from ecad.genetic.algorithms.surrogate_search import SurrogateSearch
from ecad.genetic.evaluation.evaluator import Evaluation, Job
from ecad.genetic.genes import unpack
from ecad.genetic.run import Run
from ecad.genetic.study.study import candidate_name
from ecad.schedules.schedule import Bits


@dataclass(eq=False)
class _Pending:
    """A candidate whose quality is not known yet."""

    generation: int
    number: int
    bits: Bits
    cost: int
    evaluation: Evaluation


class AsynchronousSearch:
    """One process's run of an asynchronous search.

    Args:
        run: what it shares with every search.
        algorithm: asked for generations, and told each candidate's result by itself.
        seed: random seed of the search.
        generations: of the whole study; None sets no limit.
        population_size: candidates per generation.
    """

    def __init__(
        self, run: Run, algorithm: SurrogateSearch, seed: int, generations: int | None, population_size: int
    ) -> None:
        self._run, self._algorithm, self._seed = run, algorithm, seed
        self._generations, self._population_size = generations, population_size
        self._generations_begun = 0
        self._pending_in_first = 0
        self._num_pending = 0
        # Candidates and the places of their batches' first images.
        self._queue: deque[tuple[_Pending, int]] = deque()

    def search(self) -> None:
        """Ask, evaluate and tell until the last generation is complete or the budget is used up."""
        self._resume()
        started: list[tuple[_Pending, int]] = []
        for place, found in self._run.evaluator.run(self._jobs(started)):
            candidate, start = started[place]
            candidate.evaluation.record(start, found, self._run.evaluator, self._run.store, candidate.generation)
            if not candidate.evaluation.missing:
                self._complete(candidate)
            if self._run.is_over():
                return
            if not self._queue:
                self._ask()

    def _jobs(self, started: list[tuple[_Pending, int]]) -> Iterator[Job | None]:
        while self._queue or self._ask() or self._num_pending:
            if not self._queue:
                yield None
                continue
            candidate, start = self._queue.popleft()
            started.append((candidate, start))
            yield candidate.evaluation.missing[start]

    def _resume(self) -> None:
        """Tell the algorithm what the study knows, and queue the candidates that it left unfinished."""
        rows = self._run.store.candidates()
        self._generations_begun = len(self._run.store.generations())
        if not rows:
            return
        try:
            bits = np.array([unpack(row.bits, self._run.problem.shape) for row in rows])
        except ValueError as error:
            raise EcadError(f"{self._run.store.name}: the study is damaged: {error}; restore it from a copy") from error
        cost = np.array([row.cost for row in rows])
        quality = np.array([np.nan if row.quality is None else row.quality for row in rows])
        known = ~np.isnan(quality)
        for i, row in enumerate(rows):
            self._run.update_front(row.generation, cost[i : i + 1], quality[i : i + 1])
        self._algorithm.reseed([self._seed, self._generations_begun, int(known.sum())])
        self._algorithm.mark_pending(bits)
        self._algorithm.add_results(bits[known], cost[known], quality[known])
        for place in np.flatnonzero(~known).tolist():
            self._begin(rows[place].generation, rows[place].number, bits[place], int(cost[place]))

    def _ask(self) -> bool:
        """Begin another generation; False if there is none, or none yet: the first must be known before any other."""
        if self._pending_in_first or self._generations_begun == self._generations:
            return False
        if self._generations_begun and not self._run.evaluated:
            raise EcadError("no candidate of generation 0 could be evaluated; the study holds the reasons")
        bits = self._algorithm.ask()
        if not len(bits):
            return False
        costs = self._run.problem.costs(bits)
        self._run.store.begin(self._generations_begun, bits, costs, self._algorithm.random_state)
        self._generations_begun += 1
        for number, (one, cost) in enumerate(zip(bits, costs, strict=True)):
            self._begin(self._generations_begun - 1, number, one, int(cost))
        return True

    def _begin(self, generation: int, number: int, bits: Bits, cost: int) -> None:
        schedule = self._run.problem.schedule(bits, candidate_name(generation, number))
        evaluation = Evaluation.from_store(self._run.evaluator, schedule, self._run.store)
        candidate = _Pending(generation, number, bits, cost, evaluation)
        self._num_pending += 1
        self._pending_in_first += generation == 0
        self._queue.extend((candidate, start) for start in evaluation.missing)
        if not evaluation.missing:
            self._complete(candidate)

    def _complete(self, candidate: _Pending) -> None:
        quality = float(candidate.evaluation.scores.mean())
        self._num_pending -= 1
        self._pending_in_first -= candidate.generation == 0
        left = None
        if self._generations is not None:
            left = self._num_pending + (self._generations - self._generations_begun) * self._population_size
        self._run.complete(candidate.generation, candidate.number, candidate.bits, candidate.cost, quality, left)
        self._algorithm.add_results(candidate.bits[None], np.array([candidate.cost]), np.array([quality]))
