"""Moves computed steps one at a time, as long as the error of the fitted images falls."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ecad.calibration.fitting import Fitted, Fitter
from ecad.calibration.step_choice import total_harm

# Largest distance of a move in steps.
_FARTHEST = 2
# Least decrease of the error's logarithm for which a move is kept.
_WORTH = 0.01


def polish(
    fitter: Fitter, starts: dict[int, Fitted], harm: np.ndarray, may_fit: Callable[[int], bool]
) -> dict[int, Fitted]:
    """Improve schedules by local search, one move of each in turn, the most promising moves first.

    Args:
        fitter: fits schedules and gives their errors.
        starts: number of computed steps -> initial schedule.
        harm: float (steps,), as for `best_forecasts`; orders the moves.
        may_fit: called before each move with its number of computed steps; False ends the search.

    Returns:
        number of computed steps -> the best schedule found.
    """
    best, moves = dict(starts), {count: _moves(start.steps, fitter.products, harm) for count, start in starts.items()}
    while moves:
        for count in list(moves):
            steps = next(moves[count], None)
            if steps is None:
                del moves[count]
                continue
            if not may_fit(count):
                return best
            found = fitter.fit(steps, best[count].corrects)
            if found.error < best[count].error - _WORTH:
                best[count], moves[count] = found, _moves(steps, fitter.products, harm)
    return best


def _moves(steps: tuple[int, ...], products: np.ndarray, harm: np.ndarray) -> Iterator[tuple[int, ...]]:
    """The neighbours with one computed step moved, by estimated error; the first step stays."""
    near = {
        tuple(sorted({*steps} - {step} | {step + by}))
        for step in steps[1:]
        for by in range(-_FARTHEST, _FARTHEST + 1)
        if 0 < step + by < len(products) and step + by not in steps
    }
    return iter(sorted(near, key=lambda places: (total_harm(products, harm, places), places)))
