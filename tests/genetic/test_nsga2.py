from __future__ import annotations

import numpy as np
import pytest
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.problem import Problem as PymooProblem
from pymoo.operators.crossover.pntx import PointCrossover
from pymoo.operators.mutation.bitflip import BitflipMutation
from pymoo.operators.sampling.rnd import BinaryRandomSampling
from pymoo.optimize import minimize
from synthetic import problem, quality

from ecad.genetic.front import pareto
from ecad.genetic.nsga2 import Nsga2
from ecad.schedules import flux_sites, pixart_sites

TWO_BY_TWO = tuple((f"blocks.{block}", component) for block in range(2) for component in ("attn1", "ff"))


def run(search, model, generations):
    """Every generation's bits."""
    asked = []
    for _ in range(generations):
        asked.append(search.ask())
        if not len(asked[-1]):
            break
        search.tell(model.price(asked[-1]), quality(model.plans(asked[-1])))
    return asked


class Reference(PymooProblem):
    """The same problem, for pymoo's own loop."""

    def __init__(self, model):
        super().__init__(n_var=np.prod(model.shape), n_obj=2, n_ieq_constr=1, xl=False, xu=True, vtype=bool)
        self.model, self.asked = model, []

    def _evaluate(self, x, out, *args, **kwargs):
        bits = x.reshape(-1, *self.model.shape)
        self.asked.append(bits.copy())
        out["F"] = np.column_stack([self.model.price(bits), -quality(self.model.plans(bits))])
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
    asked = run(Nsga2(model, "paper", 12, 3, start), model, 15)
    assert len(asked) == len(reference.asked) == 15
    assert all(np.array_equal(*pair) for pair in zip(asked, reference.asked, strict=True))


def test_paper_tells_that_nothing_cached_is_no_solution():
    model = problem()
    start = np.ones((2, *model.shape), dtype=bool)
    start[1, 0, 0] = False
    search = Nsga2(model, "paper", 4, 0, start)
    bits = search.ask()
    search.tell(np.zeros(4), np.ones(4))
    population = search._algorithm.pop
    feasible = {
        tuple(x.tolist()): bool(ok) for x, ok in zip(population.get("X"), population.get("FEAS")[:, 0], strict=True)
    }
    assert feasible == {tuple(one.ravel().tolist()): not one.all() for one in bits}


@pytest.mark.parametrize("mode", ["paper", "fast"])
def test_a_generation_starts_with_what_is_given(mode):
    model = problem()
    start = model.plans(np.random.default_rng(1).random((3, *model.shape)) < 0.7)
    asked = Nsga2(model, mode, 8, 0, start).ask()
    assert np.array_equal(asked[:3], start)
    assert len(asked) == 8
    more = np.concatenate([start, ~start[:, :, ::-1], start[:, ::-1]])
    assert len(Nsga2(model, "paper", 8, 0, more).ask()) == 9


@pytest.mark.parametrize("sites", [flux_sites(1, 1), None])
def test_fast_asks_for_each_plan_once_and_never_for_no_caching(sites):
    model = problem(steps=6) if sites is None else problem(steps=6, sites=sites)
    asked = np.concatenate(run(Nsga2(model, "fast", 10, 0), model, 20))
    assert len(asked) == 200
    assert len(np.unique(asked, axis=0)) == 200
    assert np.array_equal(model.plans(asked), asked)
    assert not asked.all(axis=(1, 2)).any()


def test_fast_ends_when_everything_was_tried():
    model = problem(steps=2)
    asked = run(Nsga2(model, "fast", 64, 0), model, 100)
    assert len(asked[-1]) == 0
    assert len(np.concatenate(asked)) == 2**6 - 1


@pytest.mark.parametrize("mode", ["paper", "fast"])
def test_a_seed_decides_everything(mode):
    model = problem()
    runs = [run(Nsga2(model, mode, 10, seed), model, 6) for seed in (0, 0, 1)]
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def exhaustive_front(model):
    """Every cost and quality that no schedule at all beats."""
    steps, sites = model.shape
    free = (steps - 1) * sites
    bits = np.ones((2**free - 1, steps, sites), dtype=bool)  # the last one would be no caching
    bits[:, 1:] = ((np.arange(2**free - 1)[:, None] >> np.arange(free)) & 1).reshape(-1, steps - 1, sites)
    return front(model, bits)


def front(model, bits):
    cost, worth = model.price(bits), quality(model.plans(bits))
    return [(int(cost[i]), float(worth[i])) for i in pareto(cost, worth)]


@pytest.mark.parametrize(
    ("mode", "steps", "sites", "generations"),
    [
        ("fast", 5, pixart_sites(1)[:2], 5),  # 8 bits
        ("fast", 5, pixart_sites(1), 24),  # 12 bits
        ("fast", 3, flux_sites(1, 1), 14),  # 12 bits, some without effect
        ("fast", 5, TWO_BY_TWO, 80),  # 16 bits
        ("paper", 5, pixart_sites(1)[:2], 60),  # 8 bits that matter, and the 2 of the first step
    ],
)
def test_the_front_of_a_tiny_problem_is_the_true_one(mode, steps, sites, generations):
    model = problem(steps, sites)
    asked = np.concatenate(run(Nsga2(model, mode, 96, 0), model, generations))
    assert front(model, asked[~model.plans(asked).all(axis=(1, 2))]) == exhaustive_front(model)
