"""How a forecast goes on, against the outputs that the products are of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ecad.errors import ScheduleError
from ecad.schedules.forecast import Ahead, forecasts


@st.composite
def outputs_and_runs(draw):
    steps = draw(st.integers(2, 12))
    seed = draw(st.integers(0, 999))
    outputs = np.random.default_rng(seed).normal(size=(steps, 20)).cumsum(axis=0)
    runs = [True, *draw(st.lists(st.booleans(), min_size=steps - 1, max_size=steps - 1))]
    return outputs, runs


def last_two(runs, step):
    ran = [i for i in range(step) if runs[i]]
    return ran[-1], ran[-2] if len(ran) > 1 else None


def made(outputs, runs, step, ahead):
    last, before = last_two(runs, step)
    change = 0.0 if before is None else ahead.slope * (outputs[last] - outputs[before])
    return ahead.scale * outputs[last] + change


@given(outputs_and_runs())
def test_it_is_the_least_squares_fit_by_the_last_two_outputs(problem):
    outputs, runs = problem
    assume(sum(runs) > 1)
    found = forecasts(runs, outputs @ outputs.T)
    for step in np.flatnonzero(~np.array(runs)):
        last, before = last_two(runs, step)
        by = outputs[[last] if before is None else [last, before]].T
        fit, *_ = np.linalg.lstsq(by, outputs[step], rcond=None)
        np.testing.assert_allclose(made(outputs, runs, step, found[step]), by @ fit, atol=1e-5)


@given(outputs_and_runs())
def test_unknown_products_mean_the_line(problem):
    _, runs = problem
    for step in np.flatnonzero(~np.array(runs)):
        last, before = last_two(runs, step)
        expected = Ahead() if before is None else Ahead(1.0, 1 / (last - before))
        assert forecasts(runs)[step] == expected


@given(outputs_and_runs())
def test_it_is_never_farther_off_than_the_line_or_the_last_output(problem):
    outputs, runs = problem
    assume(sum(runs) > 1)
    fitted, lines = forecasts(runs, outputs @ outputs.T), forecasts(runs)
    for step in np.flatnonzero(~np.array(runs)):
        off, by_line = (
            np.square(made(outputs, runs, step, found[step]) - outputs[step]).sum() for found in (fitted, lines)
        )
        last, _ = last_two(runs, step)
        assert off <= min(by_line, np.square(outputs[last] - outputs[step]).sum()) + 1e-6


def test_of_one_step_alone_the_output_is_repeated():
    outputs = np.array([[2.0, 0.0], [1.0, 1.0], [0.5, 2.0]])
    assert forecasts([True, False, False], outputs @ outputs.T) == [Ahead()] * 3


def test_weights_that_are_known_are_what_it_is():
    weights = ((1.0,), (0.9, 0.1), (1.1, 0.5, -0.2))
    assert forecasts([True, True, True], np.eye(3), weights) == [Ahead(1.0), Ahead(0.9, 0.1), Ahead(1.1, 0.5, -0.2)]
    assert [one.depth for one in forecasts([True, True, True], None, weights)] == [1, 2, 3]


def test_weights_of_outputs_that_do_not_run_are_refused():
    with pytest.raises(ScheduleError, match=r"output_weights \(step 001\): expected weights of at most 1 outputs"):
        forecasts([True, False], None, ((1.0,), (1.0, 0.5)))


def test_outputs_that_do_not_change_are_repeated():
    scale, slope, _ = forecasts([True, True, False], np.ones((3, 3)))[2]
    assert abs(scale - 1) < 1e-12
    assert slope == 0
