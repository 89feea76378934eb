"""Inner products of a denoiser's outputs at any two steps, from which extrapolation is calibrated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ecad.errors import ScheduleError
from ecad.schedules import json_values as plain

Products = npt.NDArray[np.float64]

_KEY = "output_products"
# Rounding may leave negative eigenvalues of this size, relative to the largest one.
_ROUNDING = 1e-6


def checked_products(values: npt.ArrayLike | None, steps: int) -> Products | None:
    """Make a read-only copy of a table of inner products.

    Args:
        values: float (steps, steps), or None.
        steps: number of steps of the schedule.

    Raises:
        ScheduleError: the shape differs, or the numbers cannot be inner products.
    """
    if values is None:
        return None
    table = np.array(values, dtype=np.float64)
    if table.shape != (steps, steps):
        raise _fault(f"float ({steps}, {steps}), one row per step", f"shape {table.shape}")
    if not np.isfinite(table).all() or not np.array_equal(table, table.T):
        raise _fault("finite numbers and a symmetric table", "others")
    least, most = np.linalg.eigvalsh(table)[[0, -1]]
    if least < -_ROUNDING * max(most, 0.0):
        raise _fault("inner products, which have no negative eigenvalue", f"{least:.3g}")
    table.setflags(write=False)
    return table


def read_products(rows: Sequence[Sequence[float]] | None, steps: int) -> Products | None:
    """Read a table from its lower triangle, as files hold it.

    Args:
        rows: row i has i + 1 numbers; or None.
        steps: number of steps of the schedule.

    Raises:
        ScheduleError: the rows have other lengths.
    """
    if rows is None:
        return None
    lengths = [len(row) for row in rows]
    if lengths != list(range(1, steps + 1)):
        found = f"{len(rows)} rows of {', '.join(map(str, lengths[:6])) or 'nothing'}"
        raise _fault(f"{steps} rows of 1 to {steps} numbers", found)
    table = np.zeros((steps, steps))
    for step, row in enumerate(rows):
        table[step, : step + 1] = table[: step + 1, step] = row
    return table


def written_products(table: Products) -> list[list[float]]:
    """The rows that `read_products` reads."""
    return [row[: step + 1] for step, row in enumerate(table.tolist())]


def same_products(one: npt.ArrayLike | None, other: npt.ArrayLike | None) -> bool:
    """Whether two tables are equal, or both None."""
    return one is other or (one is not None and other is not None and np.array_equal(one, other))


def resampled_products(table: Products, new_steps: int) -> Products:
    """The table for another number of steps, as if the outputs between two steps were interpolated linearly."""
    return products_at(table, np.arange(new_steps) * (len(table) / new_steps))


def products_at(table: Products, positions: npt.ArrayLike) -> Products:
    """The inner products of outputs between the steps of a table, as if these were interpolated linearly.

    Args:
        table: float (steps, steps).
        positions: float (n,), in steps; positions beyond the last step stand for it.

    Returns:
        float (n, n).

    >>> products_at(np.array([[1.0, 1.0], [1.0, 2.0]]), [0.0, 0.5, 1.0]).diagonal().tolist()
    [1.0, 1.25, 2.0]
    """
    steps = len(table)
    positions = np.minimum(np.asarray(positions, dtype=np.float64), steps - 1)
    rows = np.arange(len(positions))
    before = np.minimum(positions.astype(np.intp), max(steps - 2, 0))
    weights = np.zeros((len(positions), steps))
    weights[rows, before] = 1 - (positions - before)
    if steps > 1:
        weights[rows, before + 1] += positions - before
    found = weights @ table @ weights.T
    return np.asarray((found + found.T) / 2)


def _fault(expected: str, found: str) -> ScheduleError:
    return plain.fault("not a table of inner products", ("cache_schedule", _KEY), expected=expected, found=found)
