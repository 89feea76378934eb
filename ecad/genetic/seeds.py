"""Good schedules of whole steps before any search: one probe a step, then exact dynamic programming."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ecad.genetic.evaluator import Evaluator, evaluate
from ecad.genetic.problem import Problem
from ecad.schedules import CacheSchedule


def step_seeds(problem: Problem, evaluator: Evaluator, count: int) -> list[CacheSchedule]:
    """For each number of computed steps the whole-step schedule that should harm images least.

    A probe reuses everything at one step and computes all others; its error says how much that step's change matters.

    Args:
        problem: whose schedules.
        evaluator: scores images in decibels (`psnr`).
        count: how many schedules at most.

    Returns:
        schedules from all steps but one computed down to one computed.
    """
    steps, model = problem.shape[0], problem.template
    probes = []
    for step in range(1, steps):
        recompute = np.ones(problem.shape, dtype=bool)
        recompute[step] = False
        probes.append(CacheSchedule(recompute, model.sites, f"probe_{step:03d}", config=model.config))
    decibels = evaluate(evaluator, probes).mean(axis=1)
    seeds = []
    for kept in np.unique(np.linspace(1, steps - 1, min(count, steps - 1)).round().astype(int))[::-1].tolist():
        recompute = np.zeros(problem.shape, dtype=bool)
        recompute[list(best_steps(10 ** (-decibels / 10), kept))] = True
        seeds.append(CacheSchedule(recompute, model.sites, f"steps_{kept:03d}", config=model.config))
    return seeds


def best_steps(errors: Sequence[float] | np.ndarray, kept: int) -> tuple[int, ...]:
    """Which steps to compute so that the reused ones do least harm in sum.

    Features drift about evenly, so reusing them for n steps is taken to err n squared times as much as for one.

    Args:
        errors: of reusing at step 1, 2, ... what the step before computed.
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
        grown = np.concatenate([[0.0], np.asarray(errors, dtype=np.float64)])[start:] * ages**2
        harm[start, start + 1 :] = np.cumsum(grown)
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
