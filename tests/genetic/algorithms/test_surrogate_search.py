from __future__ import annotations

import numpy as np
import pytest
from synthetic import every_plan, front, problem, quality, run

from ecad.genetic.algorithms.surrogate_search import SurrogateSearch
from ecad.genetic.algorithms.whole_steps import probes, sparse_every_n, whole_steps
from ecad.schedules import flux_sites, pixart_sites

TWO_BY_TWO = tuple((f"blocks.{block}", component) for block in range(2) for component in ("attn1", "ff"))


def start(model, size=10, seed=0, **changes):
    settings = {"initial": np.zeros((0, *model.shape), dtype=bool), "decibels": False, **changes}
    return SurrogateSearch(model, size, seed, **settings)


@pytest.mark.parametrize("sites", [flux_sites(1, 1), pixart_sites(2)])
def test_each_plan_is_asked_for_once_and_no_caching_never(sites):
    model = problem(steps=6, sites=sites)
    asked = np.concatenate(run(start(model), model, 8))
    assert len(asked) >= 60
    assert len(np.unique(asked, axis=0)) == len(asked)
    assert np.array_equal(model.plans(asked), asked)
    assert not asked.all(axis=(1, 2)).any()


def test_it_ends_when_everything_was_tried():
    model = problem(steps=2)
    asked = run(start(model, 32), model, 100)
    assert len(asked[-1]) == 0
    assert len(np.concatenate(asked)) == 2**6 - 1


def test_it_begins_with_what_is_given_and_probes_and_goes_on_with_what_these_predict():
    model = problem(steps=6)
    given = model.plans(np.random.default_rng(1).random((3, *model.shape)) < 0.7)
    search = start(model, initial=given, decibels=True)
    first = search.ask()
    assert np.array_equal(first, [*given, *model.plans(np.zeros((1, *model.shape), dtype=bool)), *probes(model)])
    errors = np.array([1e-3, 1e-1, 1e-4, 1e-2, 1e-5])
    search.tell(model.costs(first), np.append(np.zeros(4), -10 * np.log10(errors)))
    asked = search.ask()
    predicted = {
        one.tobytes(): one for one in model.plans(np.concatenate([sparse_every_n(model), whole_steps(model, errors)]))
    }
    known = {one.tobytes() for one in first}
    assert np.array_equal(asked, [one for plan, one in predicted.items() if plan not in known])
    assert len(asked) == 6


def test_without_decibels_no_images_go_into_probes():
    model = problem(steps=6)
    predicted = model.plans(np.concatenate([sparse_every_n(model), whole_steps(model, np.ones(5))]))
    assert np.array_equal(start(model).ask(), predicted[np.sort(np.unique(predicted, axis=0, return_index=True)[1])])


def test_a_seed_decides_everything():
    model = problem()
    runs = [np.concatenate(run(start(model, seed=seed), model, 6)) for seed in (0, 0, 1)]
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_limits_keep_candidates_where_they_count():
    model = problem(steps=8)
    half = model.uncached_cost / 2
    free, limited = (np.concatenate(run(start(model, max_cost=most), model, 7)[2:]) for most in (None, half))
    assert (model.costs(limited) <= half).mean() > 0.9 > (model.costs(free) <= half).mean()
    floor = float(np.median(quality(free)))
    good = np.concatenate(run(start(model, min_quality=floor), model, 7)[4:])
    assert (quality(good) >= floor).mean() > 0.7 > (quality(free) >= floor).mean()


@pytest.mark.parametrize(
    ("steps", "sites", "share", "seed"),
    [
        *((5, pixart_sites(1)[:2], 0.75, seed) for seed in range(3)),  # 8 bits
        *((5, pixart_sites(1), 0.3, seed) for seed in range(2)),  # 12 bits
        *((3, flux_sites(1, 1), 0.3, seed) for seed in range(2)),  # 12 bits, some without effect
        (5, TWO_BY_TWO, 0.12, 2),  # 16 bits
    ],
)
def test_the_front_of_a_tiny_problem_is_the_true_one(steps, sites, share, seed):
    """After a part of what an exhaustive search takes."""
    model = problem(steps, sites)
    everything = every_plan(model)
    expected = front(model, everything)
    search, asked = start(model, 96, seed=seed), everything[:0]
    while not len(asked) or front(model, asked) != expected:
        assert len(asked) < share * len(everything)
        [more] = run(search, model, 1)
        assert len(more)
        asked = np.concatenate([asked, more])
