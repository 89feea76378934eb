"""SmoothCache (Liu et al., arXiv 2411.10510), reimplemented from its description, and run as a schedule.

The calibration measures on a few uncached images the relative L1 distance of each component's output from its output
one, two and three steps before, averaged over images and blocks. Components of one kind share decisions. After a
computed step, steps reuse its output as long as that error is within a threshold; the last step computes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch

from ecad.genetic.problem import Problem
from ecad.schedules import CacheSchedule
from ecad.sites.discovery import discover
from rivals.setting import Calibration, Setting, of_schedule

LOOKAHEAD = 3
# The threshold is SmoothCache's only parameter. It is chosen for these speed-ups.
SPEEDUPS = (1.25, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0)


def all_of_smooth_cache(calibration: Calibration, problem: Problem) -> list[Setting]:
    """One setting per speed-up, as close as a threshold gets to it."""
    errors = measure_drift(calibration)
    found: dict[float, Setting] = {}
    for threshold in thresholds_for(errors, problem):
        schedule = CacheSchedule(smooth_bits(errors, problem, threshold), problem.template.sites, name="smooth")
        found[threshold] = of_schedule("SmoothCache", f"{threshold:.4g}", schedule, {"threshold": threshold})
    return list(found.values()) or [Setting("SmoothCache", "all", unusable="too few steps to reuse any")]


def measure_drift(calibration: Calibration) -> dict[str, np.ndarray]:
    """Component -> relative error, float (LOOKAHEAD, steps): [k - 1, t] for reusing the output of step t at t + k."""
    sites = discover(calibration.generator.pipe.transformer)
    kept: dict[int, list[torch.Tensor]] = defaultdict(list)
    sums = {site.component: np.zeros((LOOKAHEAD, calibration.steps)) for site in sites}
    counts = {component: sum(site.component == component for site in sites) for component in sums}
    seen = [0] * len(sites)

    def watch(index: int, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
        now = output if isinstance(output, torch.Tensor) else output[0]
        component, step = sites[index].component, seen[index]
        for k, before in enumerate(reversed(kept[index]), start=1):
            error = (now - before).abs().sum() / now.abs().sum()
            sums[component][k - 1, step - k] += float(error) / counts[component]
        kept[index] = [*kept[index], now.clone()][-LOOKAHEAD:]
        seen[index] += 1

    handles = [
        site.module.register_forward_hook(lambda module, inputs, output, index=index: watch(index, output))
        for index, site in enumerate(sites)
    ]
    try:
        calibration.run()
    finally:
        for handle in handles:
            handle.remove()
    return sums


def smooth_bits(errors: dict[str, np.ndarray], problem: Problem, threshold: float) -> np.ndarray:
    """The schedule for a threshold, bool (steps, sites)."""
    rows = {component: smooth_row(error, threshold) for component, error in errors.items()}
    return np.stack([rows[component] for _, component in problem.template.sites], axis=1)


def smooth_row(error: np.ndarray, threshold: float) -> np.ndarray:
    """The steps that one kind of component computes, bool (steps,).

    Args:
        error: float (LOOKAHEAD, steps), as `measure_drift` returns it.
        threshold: the largest acceptable error.

    >>> smooth_row(np.array([[0.1, 0.1, 0.3, 0.1], [0.2, 0.4, 0.4, 0], [0.5, 0.5, 0, 0]]), 0.25).tolist()
    [True, False, False, True]
    """
    steps = error.shape[1]
    computes, step = np.ones(steps, dtype=bool), 0
    while step < steps:
        longest = min(len(error), steps - 1 - step)
        run = next((k for k in range(longest, 0, -1) if error[k - 1, step] <= threshold), 0)
        computes[step + 1 : step + 1 + run] = False
        step += run + 1
    computes[-1] = True
    return computes


def thresholds_for(errors: dict[str, np.ndarray], problem: Problem) -> Sequence[float]:
    """The smallest threshold for each speed-up that a threshold can reach."""
    values = np.unique(np.concatenate([error[error > 0] for error in errors.values()]))
    costs = problem.costs(np.stack([smooth_bits(errors, problem, value) for value in values]))
    found = []
    for speedup in SPEEDUPS:
        fast = values[costs * speedup <= problem.uncached_cost * 1.02]
        if len(fast) and float(fast[0]) not in found:
            found.append(float(fast[0]))
    return found
