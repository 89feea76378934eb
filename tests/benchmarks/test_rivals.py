"""The algorithms of `benchmarks/rivals` against slow, obvious versions of them."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch


def test_the_change_of_an_output_is_predicted_by_the_last_ratio(rivals) -> None:  # type: ignore[no-untyped-def]
    def at(value: float) -> torch.Tensor:
        return torch.full((2, 3), value)

    for every_step, sums in ((True, [0.2, 0.4]), (False, [0.2, 0.6])):
        change = rivals.easy_cache.Change(0.7, every_step)
        change.update(at(0.0), at(6.0))
        change.update(at(1.0), at(10.0))
        assert change.ratio == 4.0
        for now, expected in zip((1.5, 2.0), sums, strict=True):
            assert change.is_small(at(now))
            assert change.sum == pytest.approx(expected)
        assert not change.is_small(at(9.0))
        assert change.sum == 0.0


@pytest.mark.parametrize("kind", ["v_prediction", "epsilon", "FlowMatch"])
def test_a_prediction_and_the_latents_that_it_stands_for_are_two_forms_of_one_thing(kind, rivals) -> None:  # type: ignore[no-untyped-def]
    flow = kind == "FlowMatch"
    classes = type("FlowMatchScheduler" if flow else "Scheduler", (SimpleNamespace,), {})
    scheduler = classes(sigmas=[0.75], step_index=None, config={} if flow else {"prediction_type": kind})
    scale = rivals.easy_cache
    clean, noise = torch.randn(2, 4, 4), torch.randn(2, 4, 4)
    alpha, sigma = scale.scales(scheduler)
    noisy = clean + sigma * noise
    if flow:
        noisy = (1 - sigma) * clean + sigma * noise
    prediction = {
        "v_prediction": alpha * noise - sigma * alpha * clean,
        "epsilon": noise,
        "FlowMatch": noise - clean,
    }[kind]
    torch.testing.assert_close(scale.denoised_latents(scheduler, noisy, prediction), clean)
    torch.testing.assert_close(scale.prediction_of(scheduler, noisy, clean), prediction)


def test_the_polynomial_that_forecasts_reproduces_a_line_and_the_weights_of_a_fit(rivals) -> None:  # type: ignore[no-untyped-def]
    computed, step, steps = [0, 1, 2, 4, 7], 9, 20
    weights = rivals.spectrum.forecast_weights(computed, step, steps, 1.0)
    times = np.array(computed) * 2 / steps - 1
    values = np.random.default_rng(0).normal(size=len(computed))
    # The slow obvious version: augmented least squares.
    design = np.polynomial.chebyshev.chebvander(times, 4)
    rows = np.vstack([design, np.sqrt(0.1) * np.eye(5)])
    coefficients = np.linalg.lstsq(rows, np.concatenate([values, np.zeros(5)]), rcond=None)[0]
    expected = np.polynomial.chebyshev.chebval(step * 2 / steps - 1, coefficients)
    assert weights @ values == pytest.approx(expected)
    assert rivals.spectrum.forecast_weights(computed, step, steps, 0.0) @ np.array(computed) == pytest.approx(step)


def test_steps_are_placed_as_exhaustive_search_places_them(rivals) -> None:  # type: ignore[no-untyped-def]
    steps, count = 7, 4
    errors = np.random.default_rng(3).random((steps, steps + 1))
    errors[np.tril_indices(steps, 0, steps + 1)] = np.inf

    def cost(places: tuple[int, ...], growth: float) -> float:
        total = 0.0
        for here, there in itertools.pairwise((*places, steps)):
            total = growth * total + errors[here, there]
        return total

    for growth in (1.0, 1.15):
        paths = [(0, *rest) for rest in itertools.combinations(range(1, steps), count - 1)]
        found = tuple(rivals.samplers.placed_steps(errors, count, growth))
        assert found == min(paths, key=lambda path: cost(path, growth))


@pytest.mark.parametrize("order", [0, 1])
def test_key_steps_are_those_of_exhaustive_search(order, rivals) -> None:  # type: ignore[no-untyped-def]
    steps, count = 7, 4
    features = torch.from_numpy(np.random.default_rng(order).normal(size=(steps, 30)).cumsum(axis=0))
    costs = rivals.dp_cache.path_costs(features, order)

    def cost(keys: tuple[int, ...]) -> float:
        path = (*keys, steps)
        return sum(costs[i, j, k] for i, j, k in zip(path, path[1:], path[2:], strict=False))

    paths = [(0, 1, *rest) for rest in itertools.combinations(range(2, steps), count - 2)]
    found = tuple(rivals.dp_cache.key_steps(costs, count))
    assert found in paths
    assert cost(found) == pytest.approx(min(map(cost, paths)))
