"""Mode `fast`: starts from probes and dynamic programming, then evaluates the candidates that a surrogate prefers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ecad.genetic.algorithms.moves import flip_bits, move_steps
from ecad.genetic.algorithms.spaced_steps import heuristics
from ecad.genetic.algorithms.surrogate import Predictor, features, fit
from ecad.genetic.algorithms.whole_steps import forecast_steps, probes, read_probes, sparse_every_n, whole_steps
from ecad.genetic.problem import Problem
from ecad.schedules.schedule import Bits
from ecad.utils.pareto import gains, pareto

# The offspring that the surrogate ranks before each generation.
OFFSPRING_ROUNDS, OFFSPRING_PER_ROUND = 15, 100
# The surrogate is fitted to the newest candidates only: its time grows with the third power of their number.
MAX_TRAINING_CANDIDATES = 400
# Weight of the surrogate's standard deviation in a candidate's rank (upper confidence bound).
EXPLORATION_WEIGHT = 0.5
# Probability that a child's parent is drawn from all candidates instead of the front.
RANDOM_PARENT_RATE = 0.2
# Probability that a child extrapolates if its parent does not, and the other way round.
FORECAST_FLIP_RATE = 0.1


@dataclass(frozen=True)
class Ingredients:
    """The parts of mode `fast`, each of which `benchmarks/search_cost.py` leaves out in turn.

    Args:
        probes: one image per step and prompt measures how much each step matters; without, all count alike.
        programming: dynamic programming over whole steps gives the second generation; without, every n-th step does.
        surrogate: predictions from the images already made choose the candidates; without, chance does.
    """

    probes: bool = True
    programming: bool = True
    surrogate: bool = True


class _Population(NamedTuple):
    """Plans, bool (n, steps, sites), and their cost and quality, each (n,).

    `quality` is measured or predicted; `optimistic` is the same where it is measured, and the upper confidence bound
    where it is predicted.
    """

    plans: Bits
    cost: np.ndarray
    quality: np.ndarray
    optimistic: np.ndarray

    def plus(self, other: _Population) -> _Population:
        return _Population(*(np.concatenate(pair) for pair in zip(self, other, strict=True)))


class SurrogateSearch:
    """A search with an ask-and-tell interface: `ask` for candidates, then `tell` their cost and quality.

    The first generation holds the given candidates and, if quality is a squared error in decibels, probes of every
    step. The next one holds the whole-step schedules that dynamic programming finds. The surrogate chooses all others.
    No plan is asked for twice, and no candidate has a bit without effect.

    Args:
        problem: the schedules and their costs.
        population_size: candidates per generation, from the third on.
        seed: random seed.
        initial: bool (n, steps, sites), additional candidates of the first generation.
        decibels: whether quality is -10 log10 of a squared error.
        max_cost: candidates that cost more have no value; None takes the cost of an uncached image.
        min_quality: candidates of lower quality have no value.
        ingredients: the parts that are used.
        with_uncached: whether the schedule that reuses nothing is a candidate.

    >>> from ecad.schedules import heuristics, pixart_sites
    >>> problem = Problem(heuristics.none(pixart_sites(2), 4), lambda bits, _: bits.sum(axis=(1, 2)))
    >>> initial = np.zeros((0, 4, 6), dtype=bool)
    >>> search = SurrogateSearch(problem, population_size=6, seed=0, initial=initial, decibels=False)
    >>> for generation in range(3):
    ...     bits = search.ask()
    ...     search.tell(cost=problem.costs(bits), quality=bits[:, 1:].mean(axis=(1, 2)))
    >>> bits.shape
    (6, 4, 6)
    """

    def __init__(
        self,
        problem: Problem,
        population_size: int,
        seed: int,
        initial: Bits,
        decibels: bool,
        max_cost: float | None = None,
        min_quality: float = -np.inf,
        ingredients: Ingredients = Ingredients(),
        with_uncached: bool = False,
    ) -> None:
        self._problem, self._size, self._with = problem, population_size, ingredients
        self._probes = decibels and ingredients.probes
        self._max_cost = problem.uncached_cost if max_cost is None else max_cost
        self._min_quality = min_quality
        self._random = np.random.default_rng(seed)
        self._initial = initial
        self._asked = self._plans = np.zeros((0, *problem.shape), dtype=bool)
        self._cost, self._quality = np.zeros(0, dtype=np.int64), np.zeros(0)
        self._step_errors: np.ndarray | None = None
        self._pending: dict[bytes, Bits] = {}
        # The schedule that reuses nothing is no candidate, but where it has fewer steps than the reference.
        uncached = np.ones((1, *problem.shape), dtype=bool)
        self._seen = set() if with_uncached else {uncached.tobytes()}
        if with_uncached:
            self._initial = np.concatenate([uncached, initial])

    def ask(self) -> Bits:
        """The next generation, bool (n, steps, sites); n is 0 when there is nothing new to try."""
        first: list[Bits] = [self._initial[:0]]
        if self._probes and not len(self._plans):
            first = [self._initial, np.zeros((1, *self._problem.shape), dtype=bool), probes(self._problem)]
        elif self._step_errors is None:
            self._step_errors = self._find_step_errors()
            first = [self._initial, self._whole_steps(self._step_errors)]
        self._asked = self._unseen(np.concatenate(first))
        if not len(self._asked):
            self._asked = self._select(*self._offspring())
        self.mark_pending(self._asked)
        return self._asked

    def tell(self, cost: np.ndarray, quality: np.ndarray) -> None:
        """Add the results of the candidates just asked for.

        Args:
            cost: (n,), smaller is better.
            quality: (n,), larger is better; NaN if the candidate could not be evaluated.
        """
        self.add_results(self._asked, cost, quality)

    def mark_pending(self, bits: Bits) -> None:
        """Record that candidates, bool (n, steps, sites), are being evaluated; `ask` does so with those it returns."""
        self._pending |= {plan.tobytes(): plan for plan in bits}
        self._seen.update(self._pending)

    def add_results(self, bits: Bits, cost: np.ndarray, quality: np.ndarray) -> None:
        """`tell`, for any candidates that were asked for or marked as pending, in any order."""
        for plan in bits:
            self._pending.pop(plan.tobytes(), None)
        known = ~np.isnan(quality)
        self._plans = np.concatenate([self._plans, bits[known]])
        self._cost, self._quality = np.append(self._cost, cost[known]), np.append(self._quality, quality[known])

    def reseed(self, seed: Sequence[int]) -> None:
        """Replace the random generator."""
        self._random = np.random.default_rng(seed)

    @property
    def random_state(self) -> dict[str, object]:
        """The state of the random generator, as JSON values."""
        state: dict[str, object] = dict(self._random.bit_generator.state)
        return state

    def _find_step_errors(self) -> np.ndarray:
        if not self._probes:
            return np.ones(self._problem.shape[0] - 1)
        return read_probes(self._problem, self._plans, self._quality)

    def _whole_steps(self, step_errors: np.ndarray) -> Bits:
        """Affordable whole-step schedules, the cheapest of all among them."""
        found = whole_steps(self._problem, step_errors)
        extrapolating = self._initial[:0]
        if self._with.programming:
            extrapolating = forecast_steps(self._problem, step_errors)
        else:
            found = np.concatenate([heuristics(self._problem, len(found) - 1), found[-1:]])
        plans = self._problem.plans(np.concatenate([sparse_every_n(self._problem), found, extrapolating]))
        affordable: Bits = plans[self._problem.costs(plans) <= self._max_cost]
        return affordable

    def _offspring(self) -> tuple[_Population, _Population]:
        """Unseen descendants of the front, and the known and pending candidates that they compete with."""
        known = _Population(self._plans, self._cost, self._quality, self._quality)
        if not self._with.surrogate:
            children = self._unseen(self._children(self._plans[pareto(self._cost, self._quality)]))[: self._size]
            unranked = np.zeros(len(children))
            return _Population(children, self._problem.costs(children), unranked, unranked), known
        newest = slice(-MAX_TRAINING_CANDIDATES, None)
        model = fit(self._features(self._plans[newest]), self._quality[newest])
        if self._pending:
            known = known.plus(self._predicted(model, np.array(list(self._pending.values()))))
        pool = known
        for _ in range(OFFSPRING_ROUNDS):
            children = self._unseen(self._children(pool.plans[pareto(pool.cost, pool.quality)]))
            earlier = {plan.tobytes() for plan in pool.plans[len(known.plans) :]}
            children = children[[plan.tobytes() not in earlier for plan in children]]
            if len(children):
                pool = pool.plus(self._predicted(model, children))
        return _Population(*(values[len(known.plans) :] for values in pool)), known

    def _predicted(self, model: Predictor, plans: Bits) -> _Population:
        quality, deviation = model(self._features(plans))
        return _Population(plans, self._problem.costs(plans), quality, quality + EXPLORATION_WEIGHT * deviation)

    def _children(self, parents: Bits) -> Bits:
        return np.array([self._child(parents) for _ in range(OFFSPRING_PER_ROUND)])

    def _child(self, parents: Bits) -> Bits:
        random, forecast = self._random, self._problem.forecast
        pool = self._plans if random.random() < RANDOM_PARENT_RATE else parents
        parent = pool[random.integers(len(pool))]
        if forecast == "never":
            return flip_bits(parent, random)
        child = move_steps(parent, random)
        if forecast == "either" and random.random() < FORECAST_FLIP_RATE:
            child[0] = ~child[0]
        return child

    def _select(self, new: _Population, known: _Population) -> Bits:
        """The candidates that add most hypervolume to the front, chosen one after the other."""
        front_cost, front_quality = known.cost, known.optimistic
        cost, quality = new.cost, new.optimistic
        left = np.arange(len(new.plans))
        while len(new.plans) - len(left) < self._size and len(left):
            gain, lead = gains(cost[left], quality[left], front_cost, front_quality, self._max_cost, self._min_quality)
            best = left[np.lexsort((lead, gain))[-1]]
            front_cost, front_quality = np.append(front_cost, cost[best]), np.append(front_quality, quality[best])
            left = left[left != best]
        return np.delete(new.plans, left, axis=0)

    def _features(self, plans: Bits) -> np.ndarray:
        assert self._step_errors is not None
        return features(plans, self._problem.template.sites, self._step_errors)

    def _unseen(self, bits: Bits) -> Bits:
        """The distinct plans of candidates that were never asked for."""
        plans = self._problem.plans(bits)
        fresh = {plan.tobytes(): i for i, plan in reversed(list(enumerate(plans))) if plan.tobytes() not in self._seen}
        return plans[sorted(fresh.values())]
