"""Mode `fast`: probes and dynamic programming for a start, then candidates that a surrogate expects the most of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ecad.genetic.algorithms.moves import exchange, mutate
from ecad.genetic.algorithms.spaced_steps import heuristics
from ecad.genetic.algorithms.surrogate import describe, fit
from ecad.genetic.algorithms.whole_steps import every_few, forecast_steps, probes, whole_steps
from ecad.genetic.problem import Problem
from ecad.schedules.schedule import Bits
from ecad.utils.pareto import gains, pareto

# What the surrogate judges before a generation is evaluated: so many rounds of so many offspring.
ROUNDS, BROOD = 15, 100
# The surrogate learns from so many of the newest candidates: its time grows with the third power.
NEWEST = 400
# How much hope a candidate gets, in standard deviations of the surrogate.
HOPE = 0.5
# The share of children whose parent is no member of the front.
STRAY = 0.2
# The share of children that forecast where their parent does not, or the other way round.
TURNED = 0.1


@dataclass(frozen=True)
class Ingredients:
    """What mode `fast` is made of, to be left out one by one in `benchmarks/search_cost.py`.

    Args:
        probes: one image a step and prompt tells which steps matter; without, all do alike.
        programming: dynamic programming over whole steps gives the second generation; without, every n-th step does.
        moves: children differ from their parents by steps, blocks and components; without, by single bits.
        surrogate: what is guessed from images already made picks the candidates; without, chance does.
    """

    probes: bool = True
    programming: bool = True
    moves: bool = True
    surrogate: bool = True


class _Hopes(NamedTuple):
    """Plans, bool (n, steps, sites), with their costs and the qualities known or hoped for, (n,) each."""

    plans: Bits
    cost: np.ndarray
    quality: np.ndarray


class Fast:
    """A search that is asked for candidates and told their cost and quality, in turns.

    Where errors can be read off the quality, the first generation probes every step. The next is the whole-step
    schedules that promise most, and all others are the surrogate's choice. No plan is asked for twice, and no candidate
    has a bit without effect.

    Args:
        problem: what is searched.
        population_size: candidates a generation, from the third on.
        seed: of all its random choices.
        initial: bool (n, steps, sites), what the first generation has besides.
        decibels: whether quality is -10 log10 of a squared error.
        max_cost: what costs more is worth nothing; by default the cost of an uncached image.
        min_quality: what is worse is worth nothing.
        ingredients: what it is made of.

    >>> from ecad.schedules import heuristics, pixart_sites
    >>> problem = Problem(heuristics.none(pixart_sites(2), 4), lambda bits, _: bits.sum(axis=(1, 2)))
    >>> search = Fast(problem, population_size=6, seed=0, initial=np.zeros((0, 4, 6), dtype=bool), decibels=False)
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
    ) -> None:
        self._problem, self._size, self._with = problem, population_size, ingredients
        self._probes = decibels and ingredients.probes
        self._max_cost = problem.uncached_cost if max_cost is None else max_cost
        self._min_quality = min_quality
        self._random = np.random.default_rng(seed)
        self._initial = initial
        self._asked = self._told = np.zeros((0, *problem.shape), dtype=bool)
        self._cost, self._quality = np.zeros(0, dtype=np.int64), np.zeros(0)
        self._errors: np.ndarray | None = None
        self._pending: dict[bytes, Bits] = {}
        # Nothing cached at all is no candidate.
        self._seen = {np.ones(problem.shape, dtype=bool).tobytes()}

    def ask(self) -> Bits:
        """The next generation, bool (n, steps, sites); n is 0 when there is nothing new to try."""
        first: list[Bits] = [self._initial[:0]]
        if self._probes and not len(self._told):
            first = [self._initial, np.zeros((1, *self._problem.shape), dtype=bool), probes(self._problem)]
        elif self._errors is None:
            self._errors = self._step_errors()
            first = [self._initial, self._seeds(self._errors)]
        self._asked = self._unseen(np.concatenate(first))
        if not len(self._asked):
            self._asked = self._choose(*self._offspring())
        self.expect(self._asked)
        return self._asked

    def tell(self, cost: np.ndarray, quality: np.ndarray) -> None:
        """What the candidates just asked for are worth: cost (n,), smaller is better, and quality (n,), larger is.

        The quality of what could not be evaluated is NaN.
        """
        self.learn(self._asked, cost, quality)

    def expect(self, bits: Bits) -> None:
        """Take it that these candidates, bool (n, steps, sites), are being evaluated, as `ask` does with its own."""
        self._pending |= {plan.tobytes(): plan for plan in bits}
        self._seen.update(self._pending)

    def learn(self, bits: Bits, cost: np.ndarray, quality: np.ndarray) -> None:
        """`tell`, of any candidates that were asked for or expected, in any order."""
        for plan in bits:
            self._pending.pop(plan.tobytes(), None)
        known = ~np.isnan(quality)
        self._told = np.concatenate([self._told, bits[known]])
        self._cost, self._quality = np.append(self._cost, cost[known]), np.append(self._quality, quality[known])

    def reseed(self, seed: Sequence[int]) -> None:
        """Go on with other random choices."""
        self._random = np.random.default_rng(seed)

    @property
    def random_state(self) -> dict[str, Any]:
        """The state of its random generator, as JSON values."""
        state: dict[str, Any] = dict(self._random.bit_generator.state)
        return state

    def _seeds(self, errors: np.ndarray) -> Bits:
        """Whole-step schedules to begin with, the cheapest of all among them."""
        seeds = whole_steps(self._problem, errors)
        if not self._with.programming:
            seeds = np.concatenate([heuristics(self._problem, len(seeds) - 1), seeds[-1:]])
        seeds = self._problem.plans(np.concatenate([every_few(self._problem), seeds, self._forecast_seeds(errors)]))
        affordable: Bits = seeds[self._problem.costs(seeds) <= self._max_cost]
        return affordable

    def _forecast_seeds(self, errors: np.ndarray) -> Bits:
        return forecast_steps(self._problem, errors) if self._with.programming else self._initial[:0]

    def _step_errors(self) -> np.ndarray:
        """The error of reusing at each step but the first, as the probes tell; all alike if there are none."""
        steps = self._problem.shape[0]
        if not self._probes:
            return np.ones(steps - 1)
        quality = {plan.tobytes(): value for plan, value in zip(self._told, self._quality, strict=True)}
        # A probe that could not be evaluated tells nothing good of its step.
        worst = min(quality.values())
        decibels = [quality.get(probe.tobytes(), worst) for probe in probes(self._problem)]
        return np.asarray(10 ** (-np.array(decibels) / 10))

    def _offspring(self) -> tuple[_Hopes, _Hopes]:
        """Unseen plans that descend from the front, and what is there already or on its way."""
        if not self._with.surrogate:
            parents = self._told[pareto(self._cost, self._quality)]
            children = self._unseen(np.array([self._child(parents) for _ in range(BROOD)]))[: self._size]
            told = _Hopes(self._told, self._cost, self._quality)
            return _Hopes(children, self._problem.costs(children), np.zeros(len(children))), told
        model = fit(self._features(self._told[-NEWEST:]), self._quality[-NEWEST:])
        pool, cost, quality, hope = self._told, self._cost, self._quality, self._quality
        if self._pending:  # what is not known yet counts as much as it promises
            waiting = np.array(list(self._pending.values()))
            expected, deviation = model(self._features(waiting))
            pool, cost = np.concatenate([pool, waiting]), np.append(cost, self._problem.costs(waiting))
            quality, hope = np.append(quality, expected), np.append(hope, expected + HOPE * deviation)
        asked = len(pool)
        for _ in range(ROUNDS):
            parents = pool[pareto(cost, quality)]
            children = self._unseen(np.array([self._child(parents) for _ in range(BROOD)]))
            known = {plan.tobytes() for plan in pool[asked:]}
            children = children[[plan.tobytes() not in known for plan in children]]
            if len(children):
                expected, deviation = model(self._features(children))
                pool = np.concatenate([pool, children])
                cost = np.append(cost, self._problem.costs(children))
                quality = np.append(quality, expected)
                hope = np.append(hope, expected + HOPE * deviation)
        return _Hopes(pool[asked:], cost[asked:], hope[asked:]), _Hopes(pool[:asked], cost[:asked], hope[:asked])

    def _child(self, parents: Bits) -> Bits:
        sites, random = self._problem.template.sites, self._random
        pool = self._told if random.random() < STRAY else parents
        child, other = pool[random.integers(len(pool))].copy(), parents[random.integers(len(parents))]
        if self._problem.forecast == "either" and random.random() < TURNED:
            child[0] = ~child[0]
        if not self._with.moves:
            flipped: Bits = child ^ (random.random(child.shape) < 1 / child.size)
            return flipped
        if random.random() < 0.5:
            child, _ = exchange(child, other, sites, random)
            if random.random() < 0.5:
                return child
        return mutate(child, sites, random)

    def _choose(self, new: _Hopes, known: _Hopes) -> Bits:
        """Those that add most to the front, one after the other."""
        plans, cost, quality = new
        _, front_cost, front_quality = known
        left = np.arange(len(plans))
        while len(plans) - len(left) < self._size and len(left):
            gain, lead = gains(cost[left], quality[left], front_cost, front_quality, self._max_cost, self._min_quality)
            best = left[np.lexsort((lead, gain))[-1]]
            front_cost, front_quality = np.append(front_cost, cost[best]), np.append(front_quality, quality[best])
            left = left[left != best]
        return np.delete(plans, left, axis=0)

    def _features(self, plans: Bits) -> np.ndarray:
        assert self._errors is not None
        return describe(plans, self._problem.template.sites, self._errors)

    def _unseen(self, bits: Bits) -> Bits:
        """The plans of those that were never asked for, each once."""
        plans = self._problem.plans(bits)
        fresh = {plan.tobytes(): i for i, plan in reversed(list(enumerate(plans))) if plan.tobytes() not in self._seen}
        return plans[sorted(fresh.values())]
