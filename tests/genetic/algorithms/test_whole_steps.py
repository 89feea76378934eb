from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecad.calibration.step_choice import best_forecasts
from ecad.genetic import Problem
from ecad.genetic.algorithms.whole_steps import (
    best_steps,
    forecast_steps,
    image_error_weights,
    probes,
    sparse_every_n,
    whole_steps,
)
from ecad.genetic.genes import Forecast
from ecad.schedules import heuristics, pixart_sites


def harm(errors: list[float], computed: tuple[int, ...]) -> float:
    """The sum that `best_steps` makes small, run by run."""
    total, last, run = 0.0, 0, 0.0
    for step in range(len(errors) + 1):
        if step in computed:
            total, last, run = total + run**2, step, 0.0
        else:
            run += errors[step - 1] ** 0.5 * (step - last)
    return total + run**2


@given(st.lists(st.floats(0.001, 10), min_size=1, max_size=7), st.data())
def test_no_other_choice_of_steps_does_less_harm(errors: list[float], data: st.DataObject) -> None:
    kept = data.draw(st.integers(1, len(errors) + 1))
    found = best_steps(errors, kept)
    assert len(found) == kept
    assert list(found) == sorted({0, *found})
    best = min(harm(errors, (0, *rest)) for rest in combinations(range(1, len(errors) + 1), kept - 1))
    assert harm(errors, found) == pytest.approx(best)


def programmed(outputs: np.ndarray, errors: np.ndarray) -> list[tuple[int, ...]]:
    """The steps to compute, for each number of them except all, the largest first."""
    products = outputs @ outputs.T
    return best_forecasts(products, image_error_weights(products, errors))[::-1]


def forecast_harm(outputs: np.ndarray, errors: np.ndarray, computed: tuple[int, ...]) -> float:
    """The sum that `programmed` makes small, step by step, from the outputs themselves."""
    total = 0.0
    for step in range(1, len(outputs)):
        if step in computed:
            continue
        by = outputs[[i for i in computed if i < step][-2:]].T
        fit, *_ = np.linalg.lstsq(by, outputs[step], rcond=None)
        moved = np.square(outputs[step] - outputs[step - 1]).sum()
        total += errors[step - 1] / moved * np.square(by @ fit - outputs[step]).sum()
    return total


@given(st.integers(2, 7), st.integers(0, 999))
def test_no_other_choice_of_steps_is_forecast_with_less_harm(steps: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    outputs, errors = random.normal(size=(steps, 12)).cumsum(axis=0), random.random(steps - 1)
    found = programmed(outputs, errors)
    assert [len(places) for places in found] == list(range(steps - 1, 0, -1))
    for places in found:
        assert list(places) == sorted({0, *places})
        choices = ((0, *rest) for rest in combinations(range(1, steps), len(places) - 1))
        best = min(forecast_harm(outputs, errors, choice) for choice in choices)
        assert forecast_harm(outputs, errors, places) == pytest.approx(best, abs=1e-6)


def test_steps_whose_output_stands_still_are_no_reason_to_compute() -> None:
    outputs = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 9.0], [2.0, 9.0]])
    assert programmed(outputs, np.ones(4))[2] == (0, 3)
    assert programmed(np.zeros((3, 3)), np.ones(2))[0][0] == 0


@pytest.mark.parametrize("forecast", ["never", "always", "either"])
def test_seeds_are_programmed_by_what_is_known_of_outputs(forecast: Forecast) -> None:
    random = np.random.default_rng(0)
    outputs, errors = random.normal(size=(8, 12)).cumsum(axis=0), random.random(7)
    template = heuristics.none(pixart_sites(2), 8)
    problem = Problem(template, lambda bits, _: bits.sum(axis=(1, 2)), forecast=forecast)
    assert len(forecast_steps(problem, errors)) == 0
    known = replace(problem, template=template.replace(output_products=outputs @ outputs.T))
    found = [known.schedule(bits, "seed") for bits in known.plans(forecast_steps(known, errors))]
    if forecast == "never":
        assert not found
    else:
        computed = [tuple(np.flatnonzero(one.recompute.all(axis=1)).tolist()) for one in found]
        assert computed == programmed(outputs, errors)
        assert all(one.forecast for one in found if not one.recompute.all())


def test_seeds_spend_their_steps_where_the_probes_say() -> None:
    problem = Problem(heuristics.none(pixart_sites(2), 8), lambda bits, _: bits.sum(axis=(1, 2)))
    seeds = whole_steps(problem, np.array([0.01, 1, 1, 1, 50, 1, 1]))
    assert seeds.all(axis=2).sum(axis=1).tolist() == [7, 6, 5, 4, 3, 2, 1]
    assert (seeds.all(axis=2) == seeds.any(axis=2)).all()
    assert np.flatnonzero(seeds[4][:, 0]).tolist() == [0, 3, 5]


def test_a_probe_reuses_one_step() -> None:
    problem = Problem(heuristics.none(pixart_sites(2), 8), lambda bits, _: bits.sum(axis=(1, 2)))
    found = probes(problem)
    assert [np.flatnonzero(~probe.all(axis=1)).tolist() for probe in found] == [[step] for step in range(1, 8)]
    assert (found.all(axis=2) == found.any(axis=2)).all()


def test_every_few_steps_are_repeated_and_where_some_may_forecast_forecast() -> None:
    problem = Problem(heuristics.none(pixart_sites(2), 8), lambda bits, _: bits.sum(axis=(1, 2)))
    places = [[0, 3, 6], [0, 4], [0, 5], [0, 6]]
    assert [np.flatnonzero(one.all(axis=1)).tolist() for one in sparse_every_n(problem)] == places
    either = replace(problem, forecast="either")
    schedules = [either.schedule(bits, "few") for bits in sparse_every_n(either)]
    assert [np.flatnonzero(one.recompute.all(axis=1)).tolist() for one in schedules] == 2 * places
    assert [one.forecast for one in schedules] == 4 * [False] + 4 * [True]


@pytest.mark.parametrize("steps", [4, 8, 20])
def test_where_few_steps_compute_seeds_come_both_ways(steps: int) -> None:
    template = heuristics.none(pixart_sites(2), steps)
    either = Problem(template, lambda bits, _: bits.sum(axis=(1, 2)), forecast="either")
    seeds = [either.schedule(bits, "seed") for bits in whole_steps(either, np.ones(steps - 1))]
    computed = [(one.forecast, int(one.recompute.all(axis=1).sum())) for one in seeds]
    assert [kept for forecast, kept in computed if forecast] == list(range(steps - 1, 0, -1))
    assert [kept for forecast, kept in computed if not forecast] == list(range(min(steps - 1, 10), 0, -1))
