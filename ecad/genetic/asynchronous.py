"""The search that waits for nobody: whoever has made a batch gets the next one, whatever others are still at.

The next candidates are asked for when the last ones have been given out, with what is known by then; what is not known
yet counts as the surrogate guesses. What it asks for depends on who is how fast, so a study of this kind comes out
differently each time; but it forgets nothing, and counts nothing twice, however it is interrupted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ecad.errors import EcadError
from ecad.genetic.evaluation.evaluator import Card, Job
from ecad.genetic.study.study import name_of
from ecad.schedules.schedule import Bits

if TYPE_CHECKING:
    from ecad.genetic.algorithms.surrogate_search import Fast
    from ecad.genetic.run import Run


@dataclass(eq=False)
class _Open:
    """A candidate whose quality is not known yet."""

    generation: int
    number: int
    bits: Bits
    cost: int
    card: Card


class Steady:
    """One process's share of an asynchronous study.

    Args:
        run: what it has in common with every search.
        algorithm: is asked for candidates, and told of each by itself.
        seed: of the search.
        generations: of the whole study; None sets no limit.
        population_size: of a generation.
    """

    def __init__(self, run: Run, algorithm: Fast, seed: int, generations: int | None, population_size: int) -> None:
        self._run, self._algorithm, self._seed = run, algorithm, seed
        self._generations, self._population_size = generations, population_size
        self._begun = 0
        self._first_left = 0
        self._open = 0
        self._queue: deque[tuple[_Open, int]] = deque()

    def search(self) -> None:
        """Ask, evaluate and tell until the end, or until the time is over."""
        self._resume()
        given: list[tuple[_Open, int]] = []
        for place, found in self._run.evaluator.run(self._jobs(given)):
            candidate, start = given[place]
            candidate.card.keep(start, found, self._run.evaluator, self._run.store, candidate.generation)
            if not candidate.card.missing:
                self._close(candidate)
            if self._run.is_late():
                return
            if not self._queue:
                self._ask()

    def _jobs(self, given: list[tuple[_Open, int]]) -> Iterator[Job | None]:
        while self._queue or self._ask() or self._open:
            if not self._queue:
                yield None
                continue
            candidate, start = self._queue.popleft()
            given.append((candidate, start))
            yield candidate.card.missing[start]

    def _resume(self) -> None:
        """Tell what the study knows, and take up what it left open."""
        rows = self._run.store.candidates()
        self._begun = len(self._run.store.generations())
        if not rows:
            return
        shape = self._run.problem.shape
        unpacked = [np.unpackbits(np.frombuffer(row.bits, np.uint8), count=shape[0] * shape[1]) for row in rows]
        bits = np.array(unpacked, dtype=bool).reshape(-1, *shape)
        cost = np.array([row.cost for row in rows])
        quality = np.array([np.nan if row.quality is None else row.quality for row in rows])
        known = ~np.isnan(quality)
        for row, price, worth in zip(rows, cost, quality, strict=True):
            self._run.count(row.generation, np.array([price]), np.array([worth]))
        self._algorithm.reseed([self._seed, self._begun, int(known.sum())])
        self._algorithm.expect(bits)
        self._algorithm.learn(bits[known], cost[known], quality[known])
        for i in np.flatnonzero(~known):
            self._begin(rows[i].generation, rows[i].number, bits[i], int(cost[i]))

    def _ask(self) -> bool:
        """Begin another generation; False if there is none, or none yet: the first must be known before any other."""
        if self._first_left or self._begun == self._generations:
            return False
        if self._begun and not self._run.evaluated:
            raise EcadError("no candidate of generation 0 could be evaluated; the study holds the reasons")
        bits = self._algorithm.ask()
        if not len(bits):
            return False
        cost = self._run.problem.costs(bits)
        self._run.store.begin(self._begun, bits, cost, self._algorithm.random_state)
        self._begun += 1
        for number, (one, price) in enumerate(zip(bits, cost, strict=True)):
            self._begin(self._begun - 1, number, one, int(price))
        return True

    def _begin(self, generation: int, number: int, bits: Bits, cost: int) -> None:
        schedule = self._run.problem.schedule(bits, name_of(generation, number))
        card = Card.of(self._run.evaluator, schedule, self._run.store)
        candidate = _Open(generation, number, bits, cost, card)
        self._open += 1
        self._first_left += generation == 0
        self._queue.extend((candidate, start) for start in card.missing)
        if not card.missing:
            self._close(candidate)

    def _close(self, candidate: _Open) -> None:
        quality = float(candidate.card.scores.mean())
        self._open -= 1
        self._first_left -= candidate.generation == 0
        left = None
        if self._generations is not None:
            left = self._open + (self._generations - self._begun) * self._population_size
        self._run.close(candidate.generation, candidate.number, candidate.bits, candidate.cost, quality, left)
        self._algorithm.learn(candidate.bits[None], np.array([candidate.cost]), np.array([quality]))
