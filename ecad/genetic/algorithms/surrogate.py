"""What a schedule's images will be worth, guessed from those already made.

A rough error model says how much harm a schedule does, and where; a Gaussian process (Rasmussen and Williams, 2006,
algorithm 2.1) corrects it by what was measured.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np

from ecad.schedules import Sites
from ecad.schedules.schedule import Bits

# In units of the features' spread, and of the variance that the error model leaves.
_LENGTHS, _NOISES = (0.5, 1.0, 2.0, 4.0), (0.003, 0.03, 0.3)


def harm(plans: Bits, step_errors: np.ndarray) -> np.ndarray:
    """Where each schedule's error comes from, as a rough model has it.

    Features drift evenly, so a reused output is off by its age. An output computed among stale ones inherits their
    mean. What one site errs in a run of reused steps adds up; runs and sites err independently.

    Args:
        plans: bool (n, steps, sites), what is computed.
        step_errors: float (steps - 1,), the squared error of reusing at step 1, 2, ... what the step before computed.

    Returns:
        float64 (n, steps - 1, sites), squared errors whose sum is the schedule's.

    >>> harm(np.array([[[1], [0], [0], [1], [0]]], dtype=bool), np.ones(4))[0, :, 0].tolist()
    [1.0, 8.0, 0.0, 1.0]
    """
    num_sites = plans.shape[2]
    off = np.zeros((len(plans), num_sites))
    run = np.zeros_like(off)
    found = np.zeros((len(plans), plans.shape[1] - 1, num_sites))
    for step, weight in enumerate(np.sqrt(step_errors), start=1):
        fresh = plans[:, step]
        stale = np.where(fresh, 0.0, off + 1)
        off = np.where(fresh, stale.cumsum(axis=1) / num_sites, stale)
        before = np.where(fresh, 0.0, run)
        run = before + weight * off
        found[:, step - 1] = run**2 - before**2
    return found


def describe(plans: Bits, sites: Sites, step_errors: np.ndarray) -> np.ndarray:
    """Features of schedules: the logarithm of their harm first, then the share that each step and component has in it.

    Args:
        plans: bool (n, steps, sites).
        sites: of the model.
        step_errors: float (steps - 1,), as for `harm`.

    Returns:
        float64 (n, features); shares as square roots, so that distances between them mean the same everywhere. The
        last feature is 1 where the first row is False, which stands for a schedule that forecasts.
    """
    components = list(dict.fromkeys(component for _, component in sites))
    member = np.array([[component == name for name in components] for _, component in sites], dtype=np.float64)
    parts = (harm(plans, step_errors) @ member).reshape(len(plans), -1)
    total = parts.sum(axis=1, keepdims=True) + 1e-9 * step_errors.mean()
    return np.concatenate([np.log10(total), np.sqrt(parts / total), ~plans[:, 0, :1]], axis=1)


def fit(features: np.ndarray, quality: np.ndarray) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Learn quality from features.

    Args:
        features: float (n, features), as `describe` has them; n at least 2.
        quality: float (n,).

    Returns:
        a function of features (m, features) that gives the expected quality, float64 (m,), and its standard deviation.
    """
    center, spread = features.mean(axis=0), features.std(axis=0)
    # The shares keep their proportions; the harm, which the straight lines know already, counts as one of them.
    scale = np.full(len(spread), max(np.sqrt((spread[1:-1] ** 2).sum()), 1e-9))
    scale[0], scale[-1] = max(spread[0], 1e-9), 1.0
    lines, *_ = np.linalg.lstsq(_lines(features), quality)
    rest = quality - _lines(features) @ lines
    variance = max(float(rest.var()), 1e-12)
    points = (features - center) / scale
    apart = _distances(points, points)
    choices = product(_LENGTHS, _NOISES)
    _, length, noise = min(_surprise(apart, rest / np.sqrt(variance), *two) for two in choices)
    inverse = np.linalg.inv(np.linalg.cholesky(_matern(apart, length) + noise * np.eye(len(rest))))
    weights = inverse.T @ (inverse @ rest)

    def predict(others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        near = _matern(_distances((others - center) / scale, points), length)
        mean = _lines(others) @ lines + near @ weights
        known = (near @ inverse.T) ** 2
        return mean, np.sqrt(variance * np.maximum(1 - known.sum(axis=1), 0))

    return predict


def _lines(features: np.ndarray) -> np.ndarray:
    """The terms of two straight lines over the harm, one for schedules that forecast and one for the others."""
    harm, forecasts = features[:, :1], features[:, -1:]
    return np.concatenate([np.ones_like(harm), harm, forecasts, forecasts * harm], axis=1)


def _surprise(apart: np.ndarray, rest: np.ndarray, length: float, noise: float) -> tuple[float, float, float]:
    """Minus the log likelihood of what is left to explain, and the two numbers it is under."""
    factor = np.linalg.cholesky(_matern(apart, length) + noise * np.eye(len(rest)))
    white = np.linalg.solve(factor, rest)
    return float(white @ white / 2 + np.log(np.diag(factor)).sum()), length, noise


def _matern(apart: np.ndarray, length: float) -> np.ndarray:
    """The covariance of Matérn, 5/2."""
    ratio = np.sqrt(5) * apart / length
    covariance: np.ndarray = (1 + ratio + ratio**2 / 3) * np.exp(-ratio)
    return covariance


def _distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    square = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1)[None] - 2 * first @ second.T
    return np.asarray(np.sqrt(np.maximum(square, 0)))
