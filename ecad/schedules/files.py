"""Schedules given as one file or as a folder of files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ecad.errors import EcadError, ScheduleError
from ecad.schedules.schedule import CacheSchedule


def load_schedules(path: str | os.PathLike[str]) -> dict[str, CacheSchedule]:
    """Read `schedule_files`.

    Returns:
        file relative to the folder, without its suffix and with slashes -> schedule.

    Raises:
        EcadError: nothing is there.
        ScheduleError: a file is malformed.
    """
    root = Path(path) if Path(path).is_dir() else Path(path).parent
    return {
        file.relative_to(root).with_suffix("").as_posix(): CacheSchedule.load(file) for file in schedule_files(path)
    }


def schedule_files(path: str | os.PathLike[str]) -> list[Path]:
    """A schedule file, or every `*.json` in a folder and below it, in the order of their names.

    Raises:
        EcadError: nothing is there.
    """
    place = Path(path)
    files = sorted(place.rglob("*.json")) if place.is_dir() else [place]
    if not files:
        raise EcadError(f"{place}: expected a schedule file or a folder with some (*.json), found none")
    return files


@contextmanager
def in_file(path: str | os.PathLike[str]) -> Iterator[None]:
    """Name the file in every ScheduleError raised within.

    >>> with in_file("a.json"):
    ...     raise ScheduleError("no steps")
    Traceback (most recent call last):
    ecad.errors.ScheduleError: a.json: no steps
    """
    try:
        yield
    except ScheduleError as error:
        error.file = error.file or os.fspath(path)
        raise


def macs_metrics(macs_by_step: np.ndarray, accounting: str) -> dict[str, Any]:
    """MACs of one image as the published files state them; a multiply and an add are two of their `flops`.

    Args:
        macs_by_step: int64 (steps,).
        accounting: "full" or "linear", which published files (always linear) do not say.

    >>> metrics = macs_metrics(np.array([10, 5]), "full")
    >>> metrics["total_macs"], metrics["by_inference_step"]["001"]
    (15, {'flops': 10, 'macs': 5})
    """
    total = int(macs_by_step.sum())
    return {
        "by_inference_step": {
            f"{step:03d}": {"flops": 2 * macs, "macs": macs} for step, macs in enumerate(macs_by_step.tolist())
        },
        "total_flops": 2 * total,
        "total_macs": total,
        "total_flops_T": 2 * total / 1e12,
        "total_macs_T": total / 1e12,
        "accounting": accounting,
    }


def update_metrics(file: Path, schedule: CacheSchedule, values: Mapping[str, Any]) -> None:
    """Put values among the metrics of a schedule file, atomically, and leave all else as it is.

    Args:
        file: the schedule file; what others have written into it meanwhile is kept.
        schedule: what was measured.
        values: the metrics.

    Raises:
        ScheduleError: the file holds another schedule by now.
    """
    with _alone_in(file.parent):
        now = CacheSchedule.load(file)
        if _measured(now) != _measured(schedule):
            raise ScheduleError("changed while it was measured: measure it again", file=file)
        now.replace(metrics={**now.metrics, **values}).save(file)


def measured_speedup(schedule: CacheSchedule) -> float | None:
    """The speed-up over uncached images that `ecad latency` or `ecad demo` measured of a schedule; None if neither did.

    >>> from ecad.schedules import heuristics, pixart_sites
    >>> measured_speedup(heuristics.none(pixart_sites(1), 2).replace(metrics={"latency": {"speedup": 1.5}}))
    1.5
    """
    latency = schedule.metrics.get("latency")
    found = latency.get("speedup") if isinstance(latency, Mapping) else None
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    return float(found) if 0 < found < float("inf") else None


def _measured(schedule: CacheSchedule) -> CacheSchedule:
    """What metrics are of: all but the metrics themselves, and what a file says beside."""
    return schedule.replace(name="measured", metrics={}, attributes={}, skeleton={})


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Two processes that write metrics do so one after the other, where the system can lock a folder."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
