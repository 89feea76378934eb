"""DPCache (Cui et al., arXiv 2602.22654), reimplemented from its description: key steps by dynamic programming.

At key steps the model runs. In between, the features that enter its last layer are extrapolated from the last two key
steps (order 1) or reused from the last one (order 0), and no block runs. The calibration measures, on a few uncached
images, the error of each extrapolation for every pair of key steps and every next one. The error depends on the path,
so the dynamic program runs over pairs. (BudCache, arXiv 2606.13496, also fixes the budget and reuses, but anneals.)
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import numpy as np
import torch

from rivals.setting import Calibration, Setting
from rivals.skipped_blocks import between_key_steps

# Of 50 steps, its authors compute the first three and, for instance, 13 in total.
SHARES = (0.65, 0.5, 0.4, 0.3, 0.25)
FIRST = 2


def all_of_dp_cache(calibration: Calibration) -> list[Setting]:
    """Both orders at several numbers of key steps."""
    features = last_features(calibration)
    found = []
    for order in (1, 0):
        costs = path_costs(features, order)
        for count in dict.fromkeys(round(share * calibration.steps) for share in SHARES):
            if FIRST < count < calibration.steps:
                keys = key_steps(costs, count)
                given = {"key_steps": keys, "order": order}
                name = f"{count} of {calibration.steps}, order {order}"
                found.append(Setting("DPCache", name, given, partial(forecast_between, keys, order)))
    return found or [Setting("DPCache", "all", unusable=f"{calibration.steps} steps leave none between key steps")]


def last_features(calibration: Calibration) -> torch.Tensor:
    """The input of the last norm at each step of uncached images, float32 (steps, values)."""
    seen: list[torch.Tensor] = []
    transformer = calibration.generator.pipe.transformer
    handle = transformer.norm_out.register_forward_pre_hook(
        lambda _, args: seen.append(args[0].flatten().float().cpu())
    )
    try:
        calibration.run()
    finally:
        handle.remove()
    return torch.stack(seen)


def forecast(older: torch.Tensor, newer: torch.Tensor, gap: int, ahead: int) -> torch.Tensor:
    """Extrapolate features by `ahead` steps from two key steps that are `gap` steps apart."""
    return newer + (newer - older) * (ahead / gap)


def path_costs(features: torch.Tensor, order: int) -> np.ndarray:
    """The error of running at i, j and then k, and extrapolating in between.

    Args:
        features: float (steps, values).
        order: 1 extrapolates from two key steps, 0 reuses one.

    Returns:
        float64 (steps, steps, steps + 1), [i, j, k] for i < j < k: the relative errors of steps j + 1 to k - 1.
    """
    steps = len(features)
    costs = np.full((steps, steps, steps + 1), np.inf)
    for j in range(1, steps):
        for i in range(j):
            errors = np.zeros(steps + 1 - j)
            for t in range(j + 1, steps):
                guess = forecast(features[i], features[j], j - i, t - j) if order else features[j]
                errors[t - j] = float((guess - features[t]).abs().mean() / features[t].abs().mean())
            # errors[0] is that of step j, which computes; the sum up to k excludes step k, which computes, too.
            costs[i, j, j + 1 :] = np.cumsum(errors)[:-1]
            if not order:
                costs[:j, j] = costs[i, j]
                break
    return costs


def key_steps(costs: np.ndarray, count: int, first: int = FIRST) -> list[int]:
    """The key steps with the smallest total error.

    Args:
        costs: as `path_costs` returns them.
        count: number of key steps.
        first: number of first steps that are always key steps, at least 2.
    """
    steps = len(costs)
    # least[i, j]: error of the best path so far whose last two key steps are i and j.
    least, before = np.full((steps, steps), np.inf), []
    least[first - 2, first - 1] = 0.0
    for _ in range(count - first):
        total = least[:, :, None] + costs[:, :, :steps]
        before.append(total.argmin(axis=0))
        least = total.min(axis=0)
    i, j = np.unravel_index((least + costs[:, :, steps]).argmin(), least.shape)
    keys = [int(j), int(i)]
    for table in reversed(before):
        keys.append(int(table[keys[-1], keys[-2]]))
    return sorted({*range(first), *keys})


def forecast_between(keys: list[int], order: int, pipe: Any) -> AbstractContextManager[None]:
    """A context in which a pipeline's blocks run at key steps only.

    Args:
        keys: the steps.
        order: as for `path_costs`.
        pipe: a diffusers pipeline whose transformer ends in `norm_out`.
    """

    def between(held: dict[int, torch.Tensor], step: int) -> torch.Tensor:
        newer, older = max(held), min(held)
        if not order:
            return held[newer]
        return forecast(held[older], held[newer], newer - older, step - newer)

    return between_key_steps(pipe, keys, between, most=1 + order)
