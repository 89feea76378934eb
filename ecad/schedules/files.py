"""Schedule files: one file or a folder of them, and the metrics that are written into them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ecad.errors import EcadError, ScheduleError
from ecad.schedules.schedule import CacheSchedule


def load_schedules(path: str | os.PathLike[str]) -> dict[str, CacheSchedule]:
    """Read all `schedule_files`.

    Args:
        path: a schedule file, or a folder of them.

    Returns:
        name -> schedule; the name is the path relative to the folder, with slashes and without suffix.

    Raises:
        EcadError: there is no file.
        ScheduleError: a file is malformed.
    """
    root = Path(path) if Path(path).is_dir() else Path(path).parent
    return {
        file.relative_to(root).with_suffix("").as_posix(): CacheSchedule.load(file) for file in schedule_files(path)
    }


def schedule_files(path: str | os.PathLike[str]) -> list[Path]:
    """List a schedule file, or all `*.json` in a folder and its subfolders, sorted by path.

    Raises:
        EcadError: there is no file.
    """
    place = Path(path)
    files = sorted(place.rglob("*.json")) if place.is_dir() else [place]
    if not files:
        raise EcadError(f"{place}: no schedule files (*.json) in this folder")
    return files


@contextmanager
def in_file(path: str | os.PathLike[str]) -> Iterator[None]:
    """Add the file to every ScheduleError that the block raises.

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


def macs_metrics(macs_by_step: np.ndarray, accounting: str) -> dict[str, object]:
    """MACs of one image in the form of the published files, which count two `flops` per MAC.

    Args:
        macs_by_step: int64 (steps,).
        accounting: "full" or "linear". The published files are all "linear" and do not say so.

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


def update_metrics(file: Path, schedule: CacheSchedule, values: Mapping[str, object]) -> None:
    """Add metrics to a schedule file, atomically. Everything else in the file is kept, including concurrent changes.

    Args:
        file: the schedule file.
        schedule: the schedule that was measured.
        values: the metrics.

    Raises:
        ScheduleError: the file holds another schedule by now.
    """
    with _locked_folder(file.parent):
        now = CacheSchedule.load(file)
        if _measured(now) != _measured(schedule):
            raise ScheduleError("the schedule changed while it was measured", file=file, remedy="measure it again")
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
def _locked_folder(folder: Path) -> Iterator[None]:
    """Let processes write metrics one after the other, where the system can lock a folder."""
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
