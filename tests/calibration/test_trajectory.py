"""Output weights fitted in a closed loop, against brute force on a tiny pipeline."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import ecad
from ecad.calibration.trajectory import Trajectory, fitted_weights, recorded_coefficients, recorded_trajectory
from ecad.errors import EcadError

STEPS = 6
RUNS = [True, False, True, True, False, False]


def schedule_of(tiny, runs=RUNS, **rest) -> ecad.CacheSchedule:
    bits = np.repeat(np.array(runs)[:, None], len(tiny.components), axis=1)
    return tiny.schedule(bits).replace(forecast=True, **rest)


def cached_run(tiny, schedule) -> torch.Tensor:
    with ecad.cached(tiny.pipe, schedule):
        return tiny.run(STEPS)


def watched(tiny):
    with recorded_trajectory(tiny.pipe) as trajectory:
        tiny.run(STEPS)
    return trajectory


def fit(tiny, trajectory, corrects=True, runs=RUNS):
    make = lambda: cached_run(tiny, schedule_of(tiny, runs))  # noqa: E731
    return fitted_weights(tiny.pipe, trajectory, runs, corrects, make)


def test_a_trajectory_is_what_the_pipeline_went_through(tiny):
    trajectory = watched(tiny)
    assert trajectory.steps == STEPS
    assert len(trajectory.latents) == STEPS + 1
    assert trajectory.is_affine
    assert torch.equal(trajectory.latents[-1], tiny.run(STEPS))
    assert np.isclose(trajectory.products().trace(), STEPS)


def test_coefficients_are_those_of_the_last_batch(tiny):
    expected = watched(tiny).coefficients
    with recorded_coefficients(tiny.pipe) as found:
        tiny.run(2)
        tiny.run(STEPS)
    assert found == expected


def test_products_are_symmetric_to_the_last_bit_before_they_are_rounded(monkeypatch):
    monkeypatch.setattr(np, "round", lambda table, _: table)
    outputs = torch.randn(20, 3000, generator=torch.Generator().manual_seed(0)).cumsum(dim=0)
    products = Trajectory([], list(outputs), []).products()
    assert np.array_equal(products, products.T)


@pytest.mark.parametrize("corrects", [False, True])
def test_the_fit_is_what_a_run_with_its_weights_does(tiny, corrects):
    trajectory = watched(tiny)
    weights, error = fit(tiny, trajectory, corrects)
    latents = cached_run(tiny, schedule_of(tiny, output_weights=weights))
    off = (latents - trajectory.latents[-1]).double().square().flatten(1).mean(dim=1).log().mean()
    assert np.isclose(float(off), error, atol=1e-2)
    assert [len(row) for row in weights] == ([1, 1, 2, 3, 2, 2] if corrects else [1, 1, 1, 1, 3, 3])


def test_the_last_step_s_weights_are_the_best_there_are(tiny):
    weights, error = fit(tiny, watched(tiny))
    target = tiny.run(STEPS)
    for change in (-0.02, 0.02):
        for place in range(len(weights[-1])):
            row = [one + change * (i == place) for i, one in enumerate(weights[-1])]
            latents = cached_run(tiny, schedule_of(tiny, output_weights=(*weights[:-1], tuple(row))))
            off = (latents - target).double().square().flatten(1).mean(dim=1).log().mean()
            assert float(off) > error - 1e-3


def test_fitted_it_is_closer_than_forecast(tiny):
    trajectory = watched(tiny)
    weights, _ = fit(tiny, trajectory)
    known = {"output_products": trajectory.products()}
    errors = [
        (cached_run(tiny, schedule_of(tiny, **rest)) - trajectory.latents[-1]).square().mean()
        for rest in ({"output_weights": weights}, known, {})
    ]
    assert errors[0] < min(errors[1:])


def test_a_run_that_computes_everything_is_left_as_it_is(tiny):
    weights, error = fit(tiny, watched(tiny), runs=[True] * STEPS)
    assert error < -15
    np.testing.assert_allclose([row[0] for row in weights], 1.0, atol=1e-3)


def test_images_in_several_batches_are_refused(tiny):
    trajectory = watched(tiny)

    def twice():
        return cached_run(tiny, schedule_of(tiny)), cached_run(tiny, schedule_of(tiny))

    with pytest.raises(EcadError, match="give fewer prompts"):
        fitted_weights(tiny.pipe, trajectory, RUNS, True, twice)
