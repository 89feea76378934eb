"""How alike a denoiser's outputs at any two steps are: a schedule that forecasts draws its lines by it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ecad.errors import ScheduleError
from ecad.schedules import json_values as plain

Products = npt.NDArray[np.float64]

_KEY = "output_products"
# What rounding may leave of a table that no outputs can have, in parts of its largest entry.
_ROUNDING = 1e-6


def checked_products(values: npt.ArrayLike | None, steps: int) -> Products | None:
    """A read-only copy of a table of inner products.

    Args:
        values: float (steps, steps), or None.
        steps: of the schedule.

    Raises:
        ScheduleError: another shape, or numbers that are no inner products of anything.
    """
    if values is None:
        return None
    table = np.array(values, dtype=np.float64)
    if table.shape != (steps, steps):
        raise _fault(f"float ({steps}, {steps}), a row a step", f"shape {table.shape}")
    if not np.isfinite(table).all() or not np.array_equal(table, table.T):
        raise _fault("finite numbers, the same below and above the diagonal", "others")
    least, most = np.linalg.eigvalsh(table)[[0, -1]]
    if least < -_ROUNDING * max(most, 0.0):
        raise _fault("inner products, which have no negative eigenvalue", f"{least:.3g}")
    table.setflags(write=False)
    return table


def read_products(rows: Sequence[Sequence[float]] | None, steps: int) -> Products | None:
    """The table whose lower triangle a file holds, row by row; raises ScheduleError for another shape."""
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
    """Whether both are known and equal, or neither is known."""
    return one is other or (one is not None and other is not None and np.array_equal(one, other))


def resampled_products(table: Products, new_steps: int) -> Products:
    """The table for another number of steps, as if outputs in between lay on straight lines."""
    return products_at(table, np.arange(new_steps) * (len(table) / new_steps))


def products_at(table: Products, places: npt.ArrayLike) -> Products:
    """The inner products of outputs between a table's rows, as if these lay on straight lines.

    Args:
        table: float (steps, steps).
        places: float (n,), in rows; past the last row they stand for it.

    Returns:
        float (n, n).

    >>> products_at(np.array([[1.0, 1.0], [1.0, 2.0]]), [0.0, 0.5, 1.0]).diagonal().tolist()
    [1.0, 1.25, 2.0]
    """
    steps = len(table)
    places = np.minimum(np.asarray(places, dtype=np.float64), steps - 1)
    rows = np.arange(len(places))
    before = np.minimum(places.astype(np.intp), max(steps - 2, 0))
    share = np.zeros((len(places), steps))
    share[rows, before] = 1 - (places - before)
    if steps > 1:
        share[rows, before + 1] += places - before
    found = share @ table @ share.T
    return np.asarray((found + found.T) / 2)


def _fault(expected: str, found: str) -> ScheduleError:
    return plain.fault("not a table of inner products", ("cache_schedule", _KEY), expected=expected, found=found)
