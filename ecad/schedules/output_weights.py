"""Output weights: per step, the linear combination of computed outputs that is used as the denoiser's output."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ecad.errors import ScheduleError
from ecad.schedules import json_values as plain

# One row per step: weights of the newest computed output, of its change since the one before, and of the change before.
OutputWeights = tuple[tuple[float, ...], ...]

# More outputs improve no fit (docs/search.md), and each is kept in memory.
MAX_OUTPUTS = 3


def checked_weights(
    rows: Sequence[Sequence[float]] | None, recompute: np.ndarray, forecast: bool
) -> OutputWeights | None:
    """Make a read-only copy of a table of weights.

    Args:
        rows: 1 to `MAX_OUTPUTS` weights per step; or None.
        recompute: bool (steps, sites), of the schedule.
        forecast: whether the schedule extrapolates.

    Raises:
        ScheduleError: the shape is wrong, a number is not finite, a row needs more outputs than are computed by then,
            or the schedule does not extrapolate.
    """
    if rows is None:
        return None
    if not forecast:
        raise _fault((), "forecast true beside them", "forecast false")
    if len(rows) != len(recompute):
        raise _fault((), f"{len(recompute)} rows, one per step", f"{len(rows)}")
    # The first step always computes.
    computes = np.asarray(recompute.any(axis=1))
    counts = 1 + np.cumsum(computes) - int(computes[0])
    for step, (row, known) in enumerate(zip(rows, counts.tolist(), strict=True)):
        most = min(known, MAX_OUTPUTS)
        if not 1 <= len(row) <= most:
            expected = f"1 to {most} weights: {known} outputs are computed by then"
            raise _fault((step,), expected, f"{len(row)}")
        if not np.isfinite(row).all():
            raise _fault((step,), "finite numbers", plain.show(list(row)))
    return tuple(tuple(float(weight) for weight in row) for row in rows)


def _fault(place: tuple[int, ...], expected: str, found: str) -> ScheduleError:
    path: tuple[str | int, ...] = ("cache_schedule", "output_weights", *place)
    return plain.fault("not a table of output weights", path, expected=expected, found=found)
