"""Which candidates are worth having, and how much they are worth together."""

from __future__ import annotations

import numpy as np


def pareto(cost: np.ndarray, quality: np.ndarray) -> np.ndarray:
    """The candidates that no other one equals or beats in both cost (smaller) and quality (larger).

    Args:
        cost: (n,).
        quality: float (n,).

    Returns:
        int indices, cheapest first; of equals, the first.

    >>> pareto(np.array([3, 1, 2, 2]), np.array([0.9, 0.5, 0.4, 0.7])).tolist()
    [1, 3, 0]
    """
    order = np.lexsort((np.arange(len(cost)), -quality, cost))
    best = np.maximum.accumulate(quality[order])
    return order[np.diff(best, prepend=-np.inf) > 0]


def hypervolume(cost: np.ndarray, quality: np.ndarray, worst_cost: float, worst_quality: float) -> float:
    """The area that candidates dominate (Zitzler and Thiele, 1998), with cost as a fraction of the worst.

    Args:
        cost: (n,).
        quality: float (n,).
        worst_cost, worst_quality: the corner that the area is measured from; what is worse counts nothing.

    Returns:
        in units of quality: 1 if something free were better than the worst by 1.

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
    """How much each of some candidates alone would add to the area that others dominate.

    Args:
        cost, quality: (n,), of the candidates.
        front_cost, front_quality: (m,), of the others, one of them at most as costly as any candidate.
        worst_cost, worst_quality: the corner that the area is measured from; what is worse counts nothing.

    Returns:
        the gains, float64 (n,), in the units of `hypervolume`; and by how much each is better than the best that costs
        no more, float64 (n,), which ranks those that gain nothing.

    >>> front = np.array([2]), np.array([1.0])
    >>> [found.tolist() for found in gains(np.array([5, 2, 6]), np.array([3.0, 2.0, 0.5]), *front, 10, 0.0)]
    [[1.0, 0.8, 0.0], [2.0, 1.0, -0.5]]
    """
    front = pareto(front_cost, front_quality)
    begins, levels = front_cost[front], front_quality[front]
    ends = np.minimum(np.append(begins[1:], worst_cost), worst_cost)
    widths = np.maximum(ends[None] - np.maximum(begins[None], cost[:, None]), 0)
    heights = np.maximum(quality[:, None] - np.maximum(levels, worst_quality)[None], 0)
    level = levels[np.maximum(np.searchsorted(begins, cost, side="right") - 1, 0)]
    return (widths * heights).sum(axis=1) / worst_cost, quality - level
