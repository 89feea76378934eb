"""Schedules whose steps recompute everything or nothing, to start a search from."""

from __future__ import annotations

import numpy as np

from ecad.genetic.genes import SearchSpace
from ecad.schedules import CacheSchedule
from ecad.schedules.schedule import Bits

# Exponents that space the computed steps evenly, or more densely at the end or at the beginning.
_WARPS = (1.0, 2 / 3, 3 / 2)


def heuristics(space: SearchSpace, count: int) -> Bits:
    """Whole-step schedules, evenly spaced or not, from one reused step to one computed step.

    Args:
        space: gives the number of steps and the sites.
        count: the largest number of schedules; few steps give fewer.

    Returns:
        bool (n, steps, sites), n <= count: every 2nd step, every 3rd, ... first, then the others by cost.
    """
    num_steps, num_sites = space.shape
    every_n = [tuple(range(0, num_steps, n)) for n in range(2, num_steps)]
    others = [_warped(num_steps, kept, warp) for kept in range(1, num_steps) for warp in _WARPS]
    others = [steps for steps in dict.fromkeys(others) if steps not in every_n]
    every_n = every_n[: max(count // 4, 1)]
    spaced = np.linspace(0, len(others) - 1, min(count - len(every_n), len(others))).round().astype(int)
    chosen = (every_n + [others[i] for i in np.unique(spaced)])[:count]
    bits = np.zeros((len(chosen), num_steps, num_sites), dtype=bool)
    for candidate, steps in zip(bits, chosen, strict=True):
        candidate[list(steps)] = True
    return bits


def heuristic_schedules(space: SearchSpace, count: int | None = None) -> list[CacheSchedule]:
    """`heuristics` as schedules; by default 72, the population size of the paper."""
    model = space.template
    bits = heuristics(space, 72 if count is None else count)
    return [model.replace(recompute=one, name=f"heuristic_{i:03d}") for i, one in enumerate(bits)]


def _warped(num_steps: int, kept: int, warp: float) -> tuple[int, ...]:
    """The indices of `kept` computed steps, the first included.

    >>> _warped(20, 5, 1.0), _warped(20, 5, 1.5), _warped(20, 5, 2 / 3)
    ((0, 4, 8, 12, 16), (0, 1, 5, 9, 14), (0, 6, 10, 14, 17))
    """
    steps = np.floor(num_steps * (np.arange(kept) / kept) ** warp + 1e-9).astype(int)
    rank = np.arange(kept)
    # Move apart those that fell on one step.
    steps = np.maximum.accumulate(steps - rank) + rank
    return tuple(np.minimum(steps, num_steps - kept + rank).tolist())
