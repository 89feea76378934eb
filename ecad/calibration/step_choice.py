"""Chooses the computed steps from the outputs of a batch of uncached images, with numpy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ecad.schedules.forecast import forecast_errors

# An output's error affects the image in proportion to the square of the sampler's coefficient. Later steps partly
# correct early errors, so the weight of a step grows by this factor.
GROWTH = 1.1
# In the other law all steps weigh the same, except for the last one, which no later step corrects.
LAST = 5.0


class Outputs(NamedTuple):
    """What the outputs of uncached images tell.

    Attributes:
        products: float (steps, steps), as in `CacheSchedule.output_products`.
        coefficients: float (steps,), the sampler's coefficient of each output; empty if the sampler is not affine.
        levels: the steps' noise levels, as `sigmas_config` returns them; empty if they are unknown.
    """

    products: np.ndarray
    coefficients: Sequence[float]
    levels: Mapping[str, object]


def harms(coefficients: Sequence[float]) -> list[np.ndarray]:
    """Weights of the squared error of each step's output, by two laws (docs/search.md).

    Args:
        coefficients: float (steps,), the sampler's coefficient of each output.

    Returns:
        two arrays float64 (steps,).
    """
    squared = np.square(np.asarray(coefficients, dtype=np.float64))
    last = np.ones(len(squared))
    last[-1] = LAST
    return [squared * GROWTH ** np.arange(len(squared)), squared * last]


def best_forecasts(products: np.ndarray, harm: np.ndarray) -> list[tuple[int, ...]]:
    """Choose the computed steps that minimize the weighted error of extrapolations from the last two computed steps.

    Dynamic programming over pairs of computed steps, as in DPCache (arXiv 2602.22654).

    Args:
        products: float (steps, steps), as in `CacheSchedule.output_products`.
        harm: float (steps,), weight of the squared error of each step's output.

    Returns:
        the computed steps for each number of them from 1 to steps - 1, in order.

    >>> bent = np.array([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, 2.0, 0.0], [1.0, 3.0, 0.0], [1.0, 3.0, 1.0]])
    >>> best_forecasts(bent @ bent.T, np.ones(5))[2]
    (0, 1, 4)
    """
    steps = len(products)
    off = forecast_errors(products) * harm
    # run[i, j, k]: error of the extrapolations j + 1 to k - 1 from steps j and i; the last i stands for none.
    run = np.full((steps + 1, steps, steps + 1), np.inf)
    for j in range(steps):
        run[:, j, j + 1 :] = np.concatenate([np.zeros((steps + 1, 1)), off[:, j, j + 1 :].cumsum(axis=1)], axis=1)
    following: list[np.ndarray] = []
    least, found = run[:, :, steps], []
    for _ in range(steps - 1):
        found.append(_followed(following, steps))
        # least[i, j]: least error after step j, if i is computed before j and one more step follows per round.
        total = run[:, :, :steps] + least[:steps][None]
        following.append(total.argmin(axis=2))
        least = total.min(axis=2)
    return found


def total_harm(products: np.ndarray, harm: np.ndarray, places: Sequence[int]) -> float:
    """The objective of `best_forecasts` for given computed steps, in order and beginning with 0."""
    off, found = forecast_errors(products) * harm, 0.0
    for before, last, end in zip((len(products), *places), places, (*places[1:], len(products)), strict=False):
        found += float(off[before, last, last + 1 : end].sum())
    return found


def _followed(following: Sequence[np.ndarray], steps: int) -> tuple[int, ...]:
    before, place, places = steps, 0, [0]
    for table in reversed(following):
        before, place = place, int(table[before, place])
        places.append(place)
    return tuple(places)
