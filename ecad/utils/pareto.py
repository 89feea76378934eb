"""The Pareto front of points in cost and quality, and its hypervolume."""

from __future__ import annotations

import numpy as np


def pareto(cost: np.ndarray, quality: np.ndarray) -> np.ndarray:
    """The non-dominated points: no other point has at most their cost (minimized) and at least their quality.

    Args:
        cost: (n,).
        quality: float (n,).

    Returns:
        int indices, cheapest first; the first of several equal points.

    >>> pareto(np.array([3, 1, 2, 2]), np.array([0.9, 0.5, 0.4, 0.7])).tolist()
    [1, 3, 0]
    """
    order = np.lexsort((np.arange(len(cost)), -quality, cost))
    best = np.maximum.accumulate(quality[order])
    return order[np.diff(best, prepend=-np.inf) > 0]


def hypervolume(cost: np.ndarray, quality: np.ndarray, worst_cost: float, worst_quality: float) -> float:
    """The area that points dominate (Zitzler and Thiele, 1998), with cost as a fraction of `worst_cost`.

    Args:
        cost: (n,).
        quality: float (n,).
        worst_cost, worst_quality: the reference point; points that are worse in either count nothing.

    Returns:
        the area in units of quality: a point of no cost that is better than the worst quality by 1 gives 1.

    >>> hypervolume(np.array([5, 2]), np.array([3.0, 1.0]), worst_cost=10, worst_quality=0.0)
    1.8
    """
    inside = (cost < worst_cost) & (quality > worst_quality)
    cost, quality = cost[inside], quality[inside]
    front = pareto(cost, quality)
    heights = np.diff(quality[front], prepend=worst_quality)
    return float(heights @ (1 - cost[front] / worst_cost))


def gains(
    cost: np.ndarray,
    quality: np.ndarray,
    front_cost: np.ndarray,
    front_quality: np.ndarray,
    worst_cost: float,
    worst_quality: float,
) -> tuple[np.ndarray, np.ndarray]:
    """How much each candidate alone would add to the hypervolume of a front.

    Args:
        cost, quality: (n,), of the candidates.
        front_cost, front_quality: (m,), of the front; one of its points must cost at most as much as any candidate.
        worst_cost, worst_quality: the reference point.

    Returns:
        the hypervolume gains, float64 (n,), and the quality gains over the best front point of no higher cost,
        float64 (n,), which rank the candidates without a hypervolume gain.

    >>> front = np.array([2]), np.array([1.0])
    >>> [gain.tolist() for gain in gains(np.array([5, 2, 6]), np.array([3.0, 2.0, 0.5]), *front, 10, 0.0)]
    [[1.0, 0.8, 0.0], [2.0, 1.0, -0.5]]
    """
    front = pareto(front_cost, front_quality)
    starts, levels = front_cost[front], front_quality[front]
    ends = np.minimum(np.append(starts[1:], worst_cost), worst_cost)
    widths = np.maximum(ends[None] - np.maximum(starts[None], cost[:, None]), 0)
    heights = np.maximum(quality[:, None] - np.maximum(levels, worst_quality)[None], 0)
    level = levels[np.maximum(np.searchsorted(starts, cost, side="right") - 1, 0)]
    return (widths * heights).sum(axis=1) / worst_cost, quality - level
