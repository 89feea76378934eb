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
