"""Confidence intervals of mean scores."""

from __future__ import annotations

import numpy as np


def mean_interval(
    scores: np.ndarray, groups: np.ndarray | None = None, *, resamples: int = 2000
) -> tuple[float, float]:
    """The 95% percentile bootstrap interval of a mean (Efron, 1979); groups are resampled as a whole.

    Args:
        scores: float (n,).
        groups: int (n,), for instance the prompt of each image: images of one prompt are not independent.
        resamples: number of bootstrap samples.

    Returns:
        lower and upper end of the interval; deterministic.

    >>> mean_interval(np.ones(10))
    (1.0, 1.0)
    """
    _, index = np.unique(np.arange(len(scores)) if groups is None else groups, return_inverse=True)
    sums, counts = np.bincount(index, scores), np.bincount(index)
    drawn = np.random.default_rng(0).integers(len(sums), size=(resamples, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
