from __future__ import annotations

import numpy as np
import pytest
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.problem import Problem as PymooProblem
from pymoo.operators.crossover.pntx import PointCrossover
from pymoo.operators.mutation.bitflip import BitflipMutation
from pymoo.operators.sampling.rnd import BinaryRandomSampling
from pymoo.optimize import minimize
from synthetic import every_plan, front, problem, quality, run

from ecad.genetic.algorithms.nsga2 import Nsga2
from ecad.schedules import pixart_sites


class Reference(PymooProblem):
    """The same problem, for pymoo's own loop."""

    def __init__(self, model):
        super().__init__(n_var=np.prod(model.shape), n_obj=2, n_ieq_constr=1, xl=False, xu=True, vtype=bool)
        self.model, self.asked = model, []

    def _evaluate(self, x, out, *args, **kwargs):
        bits = x.reshape(-1, *self.model.shape)
        self.asked.append(bits.copy())
        out["F"] = np.column_stack([self.model.costs(bits), -quality(self.model.plans(bits))])
        out["G"] = 1 - (~x).sum(axis=1)


@pytest.mark.parametrize("given", [0, 12])
def test_paper_is_the_released_search(given):
    model = problem(steps=6)
    start = np.random.default_rng(1).random((given, *model.shape)) < 0.7
    sampling = start.reshape(given, -1) if given else BinaryRandomSampling()
    released = NSGA2(
        pop_size=12,
        sampling=sampling,
        crossover=PointCrossover(prob=0.9, n_points=4),
        mutation=BitflipMutation(prob=0.05),
    )
    reference = Reference(model)
    minimize(reference, released, ("n_gen", 15), seed=3)
    asked = run(Nsga2(model, 12, 3, start), model, 15)
    assert len(asked) == len(reference.asked) == 15
    assert all(np.array_equal(*pair) for pair in zip(asked, reference.asked, strict=True))


def test_paper_tells_that_nothing_cached_is_no_solution():
    model = problem()
    start = np.ones((2, *model.shape), dtype=bool)
    start[1, 0, 0] = False
    search = Nsga2(model, 4, 0, start)
    bits = search.ask()
    search.tell(np.zeros(4), np.ones(4))
    population = search._algorithm.pop
    feasible = {
        tuple(x.tolist()): bool(ok) for x, ok in zip(population.get("X"), population.get("FEAS")[:, 0], strict=True)
    }
    assert feasible == {tuple(one.ravel().tolist()): not one.all() for one in bits}


def test_the_first_generation_starts_with_what_is_given():
    model = problem()
    start = np.random.default_rng(1).random((3, *model.shape)) < 0.7
    asked = Nsga2(model, 8, 0, start).ask()
    assert np.array_equal(asked[:3], start)
    assert len(asked) == 8
    more = np.concatenate([start, ~start[:, :, ::-1], start[:, ::-1]])
    assert len(Nsga2(model, 8, 0, more).ask()) == 9


def test_a_seed_decides_everything():
    model = problem()
    nothing = np.zeros((0, *model.shape), dtype=bool)
    runs = [run(Nsga2(model, 10, seed, nothing), model, 6) for seed in (0, 0, 1)]
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_the_front_of_a_tiny_problem_is_the_true_one():
    model = problem(5, pixart_sites(1)[:2])  # 8 bits that matter, and the 2 of the first step
    nothing = np.zeros((0, *model.shape), dtype=bool)
    asked = np.concatenate(run(Nsga2(model, 96, 0, nothing), model, 60))
    assert front(model, asked[~model.plans(asked).all(axis=(1, 2))]) == front(model, every_plan(model))
