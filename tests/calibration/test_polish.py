"""Moves of computed steps, on errors that are known."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from ecad.calibration.fitting import Fitted
from ecad.calibration.polish import polish

STEPS = 8


class Known:
    """Knows the error of every choice of steps: how far each is from a hidden best one."""

    def __init__(self, best):
        self.best, self.asked, self.products = best, [], np.eye(STEPS)

    def fit(self, steps, corrects):
        self.asked.append(steps)
        error = float(np.abs(np.subtract(steps, self.best[len(steps)])).sum())
        return Fitted(steps, corrects, None, error)  # type: ignore[arg-type]


def polished(best, starts, most=1000):
    fitter = Known(best)
    begun = {len(steps): fitter.fit(steps, True) for steps in starts}
    fitter.asked.clear()
    found = polish(fitter, begun, np.ones(STEPS), lambda _: len(fitter.asked) < most)  # type: ignore[arg-type]
    return fitter, found


def test_it_finds_what_single_moves_lead_to_whatever_the_start():
    for steps in combinations(range(1, STEPS), 2):
        _, found = polished({3: (0, 4, 6)}, [(0, *steps)])
        assert found[3].steps == (0, 4, 6)
        assert found[3].corrects


def test_the_first_step_always_computes_and_their_number_stays():
    fitter, _ = polished({3: (0, 1, 2), 4: (0, 1, 2, 3)}, [(0, 4, 6), (0, 3, 5, 7)])
    assert {steps[0] for steps in fitter.asked} == {0}
    assert {len(set(steps)) for steps in fitter.asked} == {3, 4}


def test_schedules_take_turns_until_it_may_not_go_on():
    fitter, found = polished({2: (0, 1), 3: (0, 1, 2)}, [(0, 7), (0, 6, 7)], most=4)
    assert [len(steps) for steps in fitter.asked] == [2, 3, 2, 3]
    assert set(found) == {2, 3}
