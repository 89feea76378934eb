"""How a denoiser's output is extrapolated (forecast) from the last outputs that were computed. Pure numpy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from ecad.errors import ScheduleError
from ecad.schedules.output_weights import OutputWeights

# Singular values below this, relative to the largest, are rounding.
_ROUNDING = 1e-9


class Ahead(NamedTuple):
    """A linear combination of computed outputs.

    Args:
        scale: coefficient of the newest output; 1 repeats it.
        slope: coefficient of its change since the output before; None if there is none.
        bend: coefficient of the change before that; None if there is none.
    """

    scale: float = 1.0
    slope: float | None = None
    bend: float | None = None

    @property
    def depth(self) -> int:
        """Number of computed outputs that are combined."""
        return 1 + (self.slope is not None) + (self.bend is not None)


def forecasts(
    runs: Iterable[bool], products: np.ndarray | None = None, weights: OutputWeights | None = None
) -> list[Ahead]:
    """What is used as the denoiser's output in each step.

    With `weights`, these are the coefficients in all steps. Otherwise a computed output is used as it is, and the
    output of a step in which the denoiser does not run is extrapolated from the last two: with the coefficients of
    least mean squared error if `products` are given, else linearly by one step. If only one step runs, its output is
    repeated: the best fit of a distant step would be a faded copy.

    Args:
        runs: bool (steps,), in which steps the denoiser runs; the first step is one of them.
        products: float (steps, steps), mean inner products of its outputs at any two steps; None if unknown.
        weights: one row per step, fitted to these steps; None if unknown.

    Returns:
        one entry per step.

    Raises:
        ScheduleError: a row of `weights` needs more outputs than were computed by then.

    >>> forecasts([True, False, True, False])[1::2]
    [Ahead(scale=1.0, slope=None, bend=None), Ahead(scale=1.0, slope=0.5, bend=None)]
    >>> outputs = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0], [1.0, 3.0]])
    >>> scale, slope, _ = forecasts([True, True, False, False], outputs @ outputs.T)[3]
    >>> round(scale, 6), round(slope, 6)
    (1.0, 2.0)
    """
    runs = list(runs)
    if weights is not None:
        return _checked([Ahead(*row) for row in weights], runs)
    found, computed = [], []
    is_fitted = sum(runs) > 1
    for step, runs_now in enumerate(runs):
        if runs_now:
            computed.append(step)
            found.append(Ahead())
        elif products is not None and is_fitted:
            found.append(fitted(products, step, *reversed(computed[-2:])))
        else:
            found.append(Ahead(1.0, 1 / (computed[-1] - computed[-2])) if len(computed) > 1 else Ahead())
    return found


def fitted(products: np.ndarray, step: int, last: int, before: int | None = None) -> Ahead:
    """The extrapolation of one step's output with the least mean squared error.

    Args:
        products: as for `forecasts`.
        step: the step to extrapolate to.
        last, before: steps of the last output and of the one before; None if there is none.
    """
    fits, _ = _fits(products, last, before)
    return Ahead(*fits[:, step].tolist())


def forecast_errors(products: np.ndarray) -> np.ndarray:
    """The squared error of each fitted extrapolation.

    Args:
        products: as for `forecasts`.

    Returns:
        float64 (steps + 1, steps, steps), indexed by the step of the output before the last one (`steps` for none), by
        the step of the last output, and by the extrapolated step. Only entries with the steps in this order have a
        meaning.
    """
    steps = len(products)
    found = np.zeros((steps + 1, steps, steps))
    for last in range(steps):
        for before in (None, *range(last)):
            fits, shared = _fits(products, last, before)
            found[steps if before is None else before, last] = products.diagonal() - (fits * shared).sum(axis=0)
    return np.maximum(found, 0.0)


def _checked(ahead: list[Ahead], runs: list[bool]) -> list[Ahead]:
    for step, (one, known) in enumerate(zip(ahead, np.cumsum(runs).tolist(), strict=True)):
        if one.depth > known:
            expected, found = f"weights of at most {known} outputs, which run by then", f"of {one.depth}"
            raise ScheduleError("output_weights", step=f"{step:03d}", expected=expected, found=found)
    return ahead


def _fits(products: np.ndarray, last: int, before: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Least squares fits of each step's output to the last output and its change since the one before.

    Returns:
        the coefficients, and the inner products of each output with the regressors; both float64 (1, steps), or
        (2, steps) if there is an output before the last one.
    """
    regressors = np.zeros((1 if before is None else 2, len(products)))
    regressors[:, last] = 1.0
    if before is not None:
        regressors[1, before] = -1.0
    shared = regressors @ products
    fits, *_ = np.linalg.lstsq(shared @ regressors.T, shared, rcond=_ROUNDING)
    return fits, shared
