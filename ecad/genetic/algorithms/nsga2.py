"""Mode `paper`: the search of arXiv 2506.15682 as released, pymoo's NSGA-II (Deb et al., 2002)."""

from __future__ import annotations

from typing import Any

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.problem import Problem as PymooProblem
from pymoo.core.sampling import Sampling
from pymoo.core.termination import NoTermination
from pymoo.operators.crossover.pntx import PointCrossover
from pymoo.operators.mutation.bitflip import BitflipMutation

from ecad.genetic.problem import Problem
from ecad.schedules.schedule import Bits


class Nsga2:
    """A search with an ask-and-tell interface: `ask` for candidates, then `tell` their cost and quality.

    Args:
        problem: the schedules and their costs.
        population_size: candidates per generation, at least 2.
        seed: random seed.
        initial: bool (n, steps, sites), the first candidates; the rest of the first generation is random.

    >>> from ecad.schedules import heuristics, pixart_sites
    >>> problem = Problem(heuristics.none(pixart_sites(2), 4), lambda bits, _: bits.sum(axis=(1, 2)))
    >>> search = Nsga2(problem, population_size=6, seed=0, initial=np.zeros((0, 4, 6), dtype=bool))
    >>> for generation in range(3):
    ...     bits = search.ask()
    ...     search.tell(cost=problem.costs(bits), quality=bits[:, 1:].mean(axis=(1, 2)))
    >>> bits.shape
    (6, 4, 6)
    """

    def __init__(self, problem: Problem, population_size: int, seed: int, initial: Bits) -> None:
        self._shape = problem.shape
        num_genes = int(np.prod(problem.shape))
        self._algorithm: Any = NSGA2(
            pop_size=population_size,
            sampling=_StartFrom(initial.reshape(-1, num_genes)),
            crossover=PointCrossover(prob=0.9, n_points=4),
            mutation=BitflipMutation(prob=0.05),
            eliminate_duplicates=True,
        )
        pymoo_problem = PymooProblem(n_var=num_genes, n_obj=2, n_ieq_constr=1, xl=False, xu=True, vtype=bool)
        self._algorithm.setup(pymoo_problem, seed=seed, termination=NoTermination())
        self._asked: Any = None

    def ask(self) -> Bits:
        """The next generation, bool (n, steps, sites); n is 0 when there is nothing new to try."""
        self._asked = self._algorithm.ask()
        if self._asked is None:
            return np.zeros((0, *self._shape), dtype=bool)
        genomes: Bits = self._asked.get("X").astype(bool)
        return genomes.reshape(-1, *self._shape)

    def tell(self, cost: np.ndarray, quality: np.ndarray) -> None:
        """Add the results of the candidates just asked for.

        Args:
            cost: (n,), smaller is better.
            quality: (n,), larger is better; NaN if the candidate could not be evaluated.
        """
        reused = (~self._asked.get("X").astype(bool)).sum(axis=1, keepdims=True)
        failed = np.isnan(quality)
        worst = np.nanmin(quality, initial=0.0)
        # A schedule that reuses nothing violates the constraint, a candidate that could not be evaluated even more.
        violation = np.where(failed[:, None], 2.0, 1.0 - reused)
        self._asked.set("F", np.column_stack([cost, -np.where(failed, worst, quality)]), "G", violation)
        self._algorithm.tell(infills=self._asked)

    @property
    def random_state(self) -> dict[str, object]:
        """The state of the random generator, as JSON values."""
        state: dict[str, Any] = self._algorithm.random_state.bit_generator.state
        return state


class _StartFrom(Sampling):
    """The given genomes, filled up with random ones."""

    def __init__(self, start: Bits) -> None:
        super().__init__()
        self.start = start

    def _do(
        self, _: object, n_samples: int, *args: object, random_state: np.random.Generator, **kwargs: object
    ) -> Bits:
        missing = max(n_samples - len(self.start), 0)
        return np.concatenate([self.start, random_state.random((missing, self.start.shape[1])) < 0.5])
