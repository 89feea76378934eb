"""What stands for a denoiser's output: how it goes on from the last ones that were computed. Pure numpy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from ecad.errors import ScheduleError
from ecad.schedules.output_weights import OutputWeights

# Changes between outputs that are shorter than this, in parts of the outputs, are rounding (squared).
_ROUNDING = 1e-9


class Ahead(NamedTuple):
    """What stands for an output: `scale` times the newest computed one, `slope` times its change since the one before,
    and `bend` times the change before that.

    Fields:
        scale: 1 repeats the newest output.
        slope: 0 needs no other; None if there is none.
        bend: likewise.
    """

    scale: float = 1.0
    slope: float | None = None
    bend: float | None = None

    @property
    def depth(self) -> int:
        """How many computed outputs it is made of."""
        return 1 + (self.slope is not None) + (self.bend is not None)


def forecasts(
    runs: Iterable[bool], products: np.ndarray | None = None, weights: OutputWeights | None = None
) -> list[Ahead]:
    """What stands for the denoiser's output in each step.

    Arguments:
        runs: bool (steps,), in which steps the denoiser runs; the first among them.
        products: float (steps, steps), mean inner products of its outputs at any two steps; None if they are not known.
        weights: a row a step, fitted to these very runs; None if they are not known.

    Returns one entry a step: the weights, if they are known. Else a computed output stands for itself, and for another
    one, if the products are known, the combination of the last two outputs with the least mean squared error, else the
    point one step further on the line through them. Where one step runs in all, its output is repeated: what fits a far
    one best is a pale image.

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
    found, ran = [], []
    is_fitted = sum(runs) > 1
    for step, runs_now in enumerate(runs):
        if runs_now:
            ran.append(step)
            found.append(Ahead())
        elif products is not None and is_fitted:
            fits, _ = _fits(products, *reversed(ran[-2:]))
            found.append(Ahead(*fits[:, step].tolist()))
        else:
            found.append(Ahead(1.0, 1 / (ran[-1] - ran[-2])) if len(ran) > 1 else Ahead())
    return found


def fitted(products: np.ndarray, step: int, last: int, before: int | None = None) -> Ahead:
    """The forecast of one step's output with the least mean squared error that the last two outputs allow.

    Arguments:
        products: as for `forecasts`.
        step, last, before: rows of these: the step, the last output, the one before it if there is one.
    """
    fits, _ = _fits(products, last, before)
    return Ahead(*fits[:, step].tolist())


def _checked(ahead: list[Ahead], runs: list[bool]) -> list[Ahead]:
    for step, (one, known) in enumerate(zip(ahead, np.cumsum(runs).tolist(), strict=True)):
        if one.depth > known:
            expected, found = f"weights of at most {known} outputs, which run by then", f"of {one.depth}"
            raise ScheduleError("output_weights", step=f"{step:03d}", expected=expected, found=found)
    return ahead


def forecast_errors(products: np.ndarray) -> np.ndarray:
    """How far off each fitted forecast is, squared.

    Arguments:
        products: as for `forecasts`.

    Returns float64 (steps + 1, steps, steps): by the output before the last one, by the last one, of each step; where
    the first index is `steps` there is no output before. Only what lies ahead of both means anything.
    """
    steps = len(products)
    found = np.zeros((steps + 1, steps, steps))
    for last in range(steps):
        for before in (None, *range(last)):
            fits, shared = _fits(products, last, before)
            found[steps if before is None else before, last] = products.diagonal() - (fits * shared).sum(axis=0)
    return np.maximum(found, 0.0)


def _fits(products: np.ndarray, last: int, before: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The least squares fits of each step's output by the last one and by its change, and what it shares with these.

    Both float64 (1, steps), or (2, steps) if there is an output before the last one.
    """
    shares = np.zeros((1 if before is None else 2, len(products)))
    shares[:, last] = 1.0
    if before is not None:
        shares[1, before] = -1.0
    shared = shares @ products
    fits, *_ = np.linalg.lstsq(shared @ shares.T, shared, rcond=_ROUNDING)
    return fits, shared
