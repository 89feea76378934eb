"""Which steps to compute, told from a batch of uncached images alone. Pure numpy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ecad.schedules.forecast import forecast_errors

# An error in the output of one step harms the image in proportion to the square of the sampler's coefficient there;
# what is off early is partly mended by later steps, so each step counts this much more than the one before.
GROWTH = 1.1
# The same with even growth and a last step that counts five times: nothing mends it any more.
LAST = 5.0


def harms(coefficients: Sequence[float]) -> list[np.ndarray]:
    """What a squared error of the output at each step makes of the image, by two laws (docs/search.md).

    Args:
        coefficients: float (steps,), what the sampler multiplies each output by.

    Returns two arrays float64 (steps,).
    """
    squared = np.square(np.asarray(coefficients, dtype=np.float64))
    last = np.ones(len(squared))
    last[-1] = LAST
    return [squared * GROWTH ** np.arange(len(squared)), squared * last]


def best_forecasts(products: np.ndarray, harm: np.ndarray) -> list[tuple[int, ...]]:
    """Which steps to compute so that forecasts from the last two computed ones do least harm, what is off added up.

    Key steps are chosen so in DPCache (arXiv 2602.22654), by dynamic programming over pairs of them.

    Args:
        products: float (steps, steps), as in `CacheSchedule.output_products`.
        harm: float (steps,), what a squared error of the output at each step makes of the image.

    Returns:
        for each number of computed steps but all, the smallest first, their places, in order.

    >>> bent = np.array([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, 2.0, 0.0], [1.0, 3.0, 0.0], [1.0, 3.0, 1.0]])
    >>> best_forecasts(bent @ bent.T, np.ones(5))[2]
    (0, 1, 4)
    """
    steps = len(products)
    off = forecast_errors(products) * harm
    # run[i, j, k]: of all forecasts from j + 1 to k - 1, by steps j and i; the last i is that there is none.
    run = np.full((steps + 1, steps, steps + 1), np.inf)
    for j in range(steps):
        run[:, j, j + 1 :] = np.concatenate([np.zeros((steps + 1, 1)), off[:, j, j + 1 :].cumsum(axis=1)], axis=1)
    following: list[np.ndarray] = []
    least, found = run[:, :, steps], []
    for _ in range(steps - 1):
        found.append(_followed(following, steps))
        # least[i, j]: of all that follows when j and before it i compute, and as many more as there were rounds.
        total = run[:, :, :steps] + least[:steps][None]
        following.append(total.argmin(axis=2))
        least = total.min(axis=2)
    return found


def total_harm(products: np.ndarray, harm: np.ndarray, places: Sequence[int]) -> float:
    """What `best_forecasts` makes least, of given places in order, the first of them 0."""
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
