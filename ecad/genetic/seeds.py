"""Good schedules of whole steps before any search: one probe a step, then exact dynamic programming."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ecad.genetic.problem import Problem
from ecad.schedules.schedule import Bits

# With so many computed steps or fewer a repeated output may be worth more than a line.
_FAR_APART = 10


def probes(problem: Problem) -> Bits:
    """Schedules that reuse everything at one step and compute all others: how much does that step's change matter?

    Returns:
        bool (steps - 1, steps, sites), for steps 1, 2, ...
    """
    steps = problem.shape[0]
    bits = np.ones((steps - 1, *problem.shape), dtype=bool)
    bits[np.arange(steps - 1), np.arange(1, steps)] = False
    bits[:, 0] = problem.forecast != "either"
    return problem.plans(bits)


def whole_steps(problem: Problem, errors: np.ndarray) -> Bits:
    """For each number of computed steps but all the schedule that should harm images least, as `best_steps` has it.

    Where some may forecast they do; where no more than `_FAR_APART` steps compute, there is one besides that does not:
    lines through outputs that are far apart lead astray.

    Args:
        problem: whose schedules.
        errors: float (steps - 1,), of reusing at step 1, 2, ...

    Returns:
        bool (n, steps, sites), the most expensive first, those besides last.
    """
    steps = problem.shape[0]
    bits = np.zeros((steps - 1, *problem.shape), dtype=bool)
    for one, kept in zip(bits, range(steps - 1, 0, -1), strict=True):
        one[list(best_steps(errors, kept))] = True
    if problem.forecast != "either":
        return bits
    plain = bits[-_FAR_APART:].copy()
    bits[:, 0] = False
    return np.concatenate([bits, plain])


def every_few(problem: Problem) -> Bits:
    """What costs little and is hard to beat there: every third, fourth, fifth and sixth step.

    Returns:
        bool (4, steps, sites); where some may forecast 8, the last four of which do.
    """
    bits = np.zeros((4, *problem.shape), dtype=bool)
    for one, n in zip(bits, range(3, 7), strict=True):
        one[::n] = True
    if problem.forecast != "either":
        return bits
    forecasting = bits.copy()
    forecasting[:, 0] = False
    return np.concatenate([bits, forecasting])


def best_steps(errors: Sequence[float] | np.ndarray, kept: int) -> tuple[int, ...]:
    """Which steps to compute so that the reused ones do least harm.

    Features drift evenly: reused for n steps, they are off n times as far as for one. What is off in a run of reused
    steps points the same way and adds up before it is squared; runs are independent.

    Args:
        errors: squared, of reusing at step 1, 2, ... what the step before computed.
        kept: how many steps compute, the first among them.

    Returns:
        their places, in order.

    >>> best_steps([0.1, 0.1, 0.1, 0.1, 9.0, 9.0], kept=3)
    (0, 5, 6)
    """
    steps = len(errors) + 1
    # harm[a, b]: of reusing from a + 1 to b - 1 what step a computed.
    harm = np.full((steps, steps + 1), np.inf)
    for start in range(steps):
        ages = np.arange(steps - start)
        off = np.sqrt(np.concatenate([[0.0], np.asarray(errors, dtype=np.float64)])[start:]) * ages
        harm[start, start + 1 :] = np.cumsum(off) ** 2
    least, before = harm[:, steps].copy(), []
    for _ in range(kept - 1):
        # least[a]: of all that follows when step a computes and as many more steps as there were rounds.
        total = harm[:, :steps] + least[None, :]
        before.append(total.argmin(axis=1))
        least = total.min(axis=1)
    place, places = 0, [0]
    for following in reversed(before):
        place = int(following[place])
        places.append(place)
    return tuple(places)
