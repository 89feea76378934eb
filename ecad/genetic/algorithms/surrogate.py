"""The surrogate: predicts a schedule's quality from the images already made.

A rough error model estimates how large a schedule's error is and where it arises. A Gaussian process (Rasmussen and
Williams, 2006, algorithm 2.1) corrects it by the measured qualities.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np

from ecad.schedules import Sites
from ecad.schedules.schedule import Bits

# Features of candidates -> expected quality and its standard deviation.
Predictor = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

# Candidate hyperparameters: length scales in units of the features' spread, noise in units of the residual variance.
_LENGTHS, _NOISES = (0.5, 1.0, 2.0, 4.0), (0.003, 0.03, 0.3)


def modelled_errors(plans: Bits, step_errors: np.ndarray) -> np.ndarray:
    """A rough model of each schedule's error, by step and site.

    Outputs drift at a constant rate, so a reused output is off in proportion to its age. An output that is computed
    from stale ones inherits their mean error. The errors of one site add up within a run of reused steps; runs and
    sites are independent.

    Args:
        plans: bool (n, steps, sites), what is computed.
        step_errors: float (steps - 1,), squared errors of reusing, at step 1, 2, ..., what the step before computed.

    Returns:
        float64 (n, steps - 1, sites), squared errors whose sum is the schedule's.

    >>> modelled_errors(np.array([[[1], [0], [0], [1], [0]]], dtype=bool), np.ones(4))[0, :, 0].tolist()
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


def features(plans: Bits, sites: Sites, step_errors: np.ndarray) -> np.ndarray:
    """Features of schedules: the logarithm of the modelled error, then the share of each step and component in it.

    Args:
        plans: bool (n, steps, sites).
        sites: of the model.
        step_errors: float (steps - 1,), as for `modelled_errors`.

    Returns:
        float64 (n, features). Shares are square roots, which makes distances comparable (Hellinger). The last feature
        is 1 where the first row is False, which stands for a schedule that extrapolates.
    """
    components = list(dict.fromkeys(component for _, component in sites))
    member = np.array([[component == name for name in components] for _, component in sites], dtype=np.float64)
    parts = (modelled_errors(plans, step_errors) @ member).reshape(len(plans), -1)
    total = parts.sum(axis=1, keepdims=True) + 1e-9 * step_errors.mean()
    return np.concatenate([np.log10(total), np.sqrt(parts / total), ~plans[:, 0, :1]], axis=1)


def fit(known: np.ndarray, quality: np.ndarray) -> Predictor:
    """Fit the surrogate.

    Args:
        known: float (n, features), from `features`; n at least 2.
        quality: float (n,).

    Returns:
        a function of features (m, features) that gives the expected quality, float64 (m,), and its standard deviation.
    """
    center, spread = known.mean(axis=0), known.std(axis=0)
    # The shares keep their proportions. The modelled error, which the linear terms include, counts as one of them.
    scale = np.full(len(spread), max(np.sqrt((spread[1:-1] ** 2).sum()), 1e-9))
    scale[0], scale[-1] = max(spread[0], 1e-9), 1.0
    coefficients, *_ = np.linalg.lstsq(_linear_terms(known), quality)
    residuals = quality - _linear_terms(known) @ coefficients
    variance = max(float(residuals.var()), 1e-12)
    points = (known - center) / scale
    distances = _distances(points, points)
    choices = product(_LENGTHS, _NOISES)
    _, length, noise = min(
        _negative_log_likelihood(distances, residuals / np.sqrt(variance), *pair) for pair in choices
    )
    inverse = np.linalg.inv(np.linalg.cholesky(_matern(distances, length) + noise * np.eye(len(residuals))))
    weights = inverse.T @ (inverse @ residuals)

    def predict(others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        covariance = _matern(_distances((others - center) / scale, points), length)
        mean = _linear_terms(others) @ coefficients + covariance @ weights
        explained = (covariance @ inverse.T) ** 2
        return mean, np.sqrt(variance * np.maximum(1 - explained.sum(axis=1), 0))

    return predict


def _linear_terms(described: np.ndarray) -> np.ndarray:
    """Intercept and slope over the log of the modelled error, for schedules that extrapolate and for the others."""
    error, forecasts = described[:, :1], described[:, -1:]
    return np.concatenate([np.ones_like(error), error, forecasts, forecasts * error], axis=1)


def _negative_log_likelihood(
    distances: np.ndarray, residuals: np.ndarray, length: float, noise: float
) -> tuple[float, float, float]:
    """Negative log marginal likelihood of the residuals, and the hyperparameters it belongs to."""
    factor = np.linalg.cholesky(_matern(distances, length) + noise * np.eye(len(residuals)))
    white = np.linalg.solve(factor, residuals)
    return float(white @ white / 2 + np.log(np.diag(factor)).sum()), length, noise


def _matern(distances: np.ndarray, length: float) -> np.ndarray:
    """The Matérn covariance with smoothness 5/2."""
    ratio = np.sqrt(5) * distances / length
    covariance: np.ndarray = (1 + ratio + ratio**2 / 3) * np.exp(-ratio)
    return covariance


def _distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    square = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1)[None] - 2 * first @ second.T
    return np.asarray(np.sqrt(np.maximum(square, 0)))
