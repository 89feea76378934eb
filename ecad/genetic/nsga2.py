"""NSGA-II (Deb et al., 2002) as pymoo has it, asked for candidates and told what they are worth.

Mode `paper` is the search of arXiv 2506.15682 as released. Mode `fast` changes what the candidates are: its operators
respect the structure of a schedule, every candidate is the canonical one of its plan, and no plan comes twice.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.crossover import Crossover
from pymoo.core.duplicate import DuplicateElimination
from pymoo.core.mutation import Mutation
from pymoo.core.population import Population
from pymoo.core.problem import Problem as PymooProblem
from pymoo.core.repair import Repair
from pymoo.core.sampling import Sampling
from pymoo.core.termination import NoTermination
from pymoo.operators.crossover.pntx import PointCrossover
from pymoo.operators.mutation.bitflip import BitflipMutation

from ecad.genetic.initial import heuristics
from ecad.genetic.moves import exchange, mutate
from ecad.genetic.problem import Problem
from ecad.schedules.schedule import Bits

Mode = Literal["paper", "fast"]


class Nsga2:
    """A search that is asked for candidates and told their cost and quality, in turns.

    Args:
        problem: what is searched.
        mode: "paper" or "fast".
        population_size: candidates a generation, at least 2.
        seed: of all its random choices.
        initial: bool (n, steps, sites), where it starts. In mode `paper` the rest of the first generation is random,
            in mode `fast` whole-step heuristics.

    >>> from ecad.schedules import heuristics, pixart_sites
    >>> problem = Problem(heuristics.none(pixart_sites(2), 4), lambda bits: bits.sum(axis=(1, 2)))
    >>> search = Nsga2(problem, "fast", population_size=6, seed=0)
    >>> for generation in range(3):
    ...     bits = search.ask()
    ...     search.tell(cost=problem.price(bits), quality=bits[:, 1:].mean(axis=(1, 2)))
    >>> bits.shape
    (6, 4, 6)
    """

    def __init__(
        self, problem: Problem, mode: Mode, population_size: int, seed: int, initial: Bits | None = None
    ) -> None:
        self._problem = problem
        # Nothing cached at all is no candidate.
        self._seen = {_key(np.ones(problem.shape, dtype=bool))}
        num_genes = int(np.prod(problem.shape))
        start = np.zeros((0, num_genes), dtype=bool) if initial is None else initial.reshape(-1, num_genes)
        pymoo_problem = PymooProblem(n_var=num_genes, n_obj=2, n_ieq_constr=1, xl=False, xu=True, vtype=bool)
        make = {"paper": self._paper, "fast": self._fast}[mode]
        self._algorithm: Any = make(population_size, start)
        self._algorithm.setup(pymoo_problem, seed=seed, termination=NoTermination())
        self._asked: Any = None

    def ask(self) -> Bits:
        """The next generation, bool (n, steps, sites); n is 0 when there is nothing new to try."""
        self._asked = self._algorithm.ask()
        if self._asked is None:
            return np.zeros((0, *self._problem.shape), dtype=bool)
        genomes: Bits = self._asked.get("X").astype(bool)
        self._seen.update(map(_key, genomes))
        return genomes.reshape(-1, *self._problem.shape)

    def tell(self, cost: np.ndarray, quality: np.ndarray) -> None:
        """What the candidates just asked for are worth: cost (n,), smaller is better, and quality (n,), larger is."""
        reused = (~self._asked.get("X").astype(bool)).sum(axis=1, keepdims=True)
        self._asked.set("F", np.column_stack([cost, -quality]), "G", 1.0 - reused)
        self._algorithm.tell(infills=self._asked)

    @property
    def random_state(self) -> dict[str, Any]:
        """The state of its random generator, as JSON values."""
        state: dict[str, Any] = self._algorithm.random_state.bit_generator.state
        return state

    def _paper(self, population_size: int, start: Bits) -> NSGA2:
        return NSGA2(
            pop_size=population_size,
            sampling=_StartFrom(start, lambda count, random: random.random((count, start.shape[1])) < 0.5),
            crossover=PointCrossover(prob=0.9, n_points=4),
            mutation=BitflipMutation(prob=0.05),
            eliminate_duplicates=True,
        )

    def _fast(self, population_size: int, start: Bits) -> NSGA2:
        problem = self._problem
        return NSGA2(
            pop_size=population_size,
            sampling=_StartFrom(start, lambda count, random: _heuristics(problem, start, count, random)),
            crossover=_Exchange(problem),
            mutation=_Mutate(problem),
            repair=_Canonical(problem),
            eliminate_duplicates=_Unseen(self._seen),
        )


class _StartFrom(Sampling):
    """What is given, and as much more as a generation needs."""

    def __init__(self, start: Bits, more: Callable[[int, np.random.Generator], Bits]) -> None:
        super().__init__()
        self.start, self.more = start, more

    def _do(self, _: Any, n_samples: int, *args: Any, random_state: np.random.Generator, **kwargs: Any) -> Bits:
        return np.concatenate([self.start, self.more(max(n_samples - len(self.start), 0), random_state)])


def _heuristics(problem: Problem, start: Bits, count: int, random: np.random.Generator) -> Bits:
    """As many more genomes: heuristics and, where a short loop has too few, mutated ones. None is among `start`."""
    seen = set(map(_key, problem.plans(start.reshape(-1, *problem.shape))))
    found: list[Bits] = []
    parents = heuristics(problem, len(start) + count)
    # A tiny problem may have no more: the tries are bounded.
    tries = (mutate(parents[i % len(parents)], problem.template.sites, random) for i in range(20 * count))
    for bits in itertools.chain(parents, tries):
        plan = problem.plans(bits[None])[0]
        if len(found) < count and _key(plan) not in seen:
            seen.add(_key(plan))
            found.append(plan)
    return np.array(found, dtype=bool).reshape(len(found), start.shape[1])


class _Exchange(Crossover):
    def __init__(self, problem: Problem) -> None:
        super().__init__(n_parents=2, n_offsprings=2, prob=0.7)
        self.shape, self.sites = problem.shape, problem.template.sites

    def _do(self, _: Any, X: Bits, *args: Any, random_state: np.random.Generator, **kwargs: Any) -> Bits:
        pairs = X.reshape(2, -1, *self.shape).swapaxes(0, 1)
        children = np.array([exchange(first, second, self.sites, random_state) for first, second in pairs])
        genomes: Bits = children.swapaxes(0, 1).reshape(X.shape)
        return genomes


class _Mutate(Mutation):
    def __init__(self, problem: Problem) -> None:
        super().__init__(prob=0.7)
        self.shape, self.sites = problem.shape, problem.template.sites

    def _do(self, _: Any, X: Bits, *args: Any, random_state: np.random.Generator, **kwargs: Any) -> Bits:
        schedules = X.reshape(-1, *self.shape)
        return np.array([mutate(bits, self.sites, random_state) for bits in schedules]).reshape(X.shape)


class _Canonical(Repair):
    """The bits of what really computes, so that no bit is without effect."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem = problem

    def _do(self, _: Any, X: Bits, **kwargs: Any) -> Bits:
        return self.problem.plans(X.reshape(-1, *self.problem.shape)).reshape(X.shape)


class _Unseen(DuplicateElimination):
    """Drops what was ever asked for, and what comes twice."""

    def __init__(self, seen: set[bytes]) -> None:
        super().__init__()
        self.seen = seen

    def do(self, pop: Population, *others: Population, **kwargs: Any) -> Population:
        taken = {_key(genome) for other in others for genome in other.get("X")}
        fresh = []
        for i, genome in enumerate(pop.get("X")):
            if (key := _key(genome)) not in self.seen and key not in taken:
                taken.add(key)
                fresh.append(i)
        return pop[fresh]


def _key(genome: Bits) -> bytes:
    return np.packbits(genome).tobytes()
