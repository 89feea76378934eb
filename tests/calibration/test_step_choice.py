"""Dynamic programming over computed steps, against trying all of them."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ecad.calibration.step_choice import best_forecasts, harms, total_harm
from ecad.schedules.forecast import forecast_errors


def total(products: np.ndarray, harm: np.ndarray, places: tuple[int, ...]) -> float:
    """The same as `total_harm`, step by step."""
    steps, errors = len(products), forecast_errors(products)
    found = 0.0
    for step in set(range(steps)) - set(places):
        ran = [place for place in places if place < step]
        found += errors[ran[-2] if len(ran) > 1 else steps, ran[-1], step] * harm[step]
    return found


@given(st.integers(2, 8), st.integers(0, 999))
def test_no_other_steps_do_less_harm(steps: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    outputs, harm = random.normal(size=(steps, 20)).cumsum(axis=0), random.random(steps)
    products = outputs @ outputs.T
    for count, places in enumerate(best_forecasts(products, harm), start=1):
        assert len(places) == count
        least = min(total(products, harm, (0, *rest)) for rest in combinations(range(1, steps), count - 1))
        assert np.isclose(total(products, harm, places), least)
        assert np.isclose(total_harm(products, harm, places), least)


def test_harm_grows_with_the_square_of_the_sampler_s_coefficient() -> None:
    grown, last = harms([1.0, -2.0, 1.0])
    np.testing.assert_allclose(grown, [1, 4 * 1.1, 1.21])
    np.testing.assert_allclose(last, [1, 4, 5])
