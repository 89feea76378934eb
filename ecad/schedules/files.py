"""Schedule files: one file or a folder of them, and the metrics that are written into them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np

from ecad.errors import EcadError, ScheduleError
from ecad.schedules.schedule import CacheSchedule
from ecad.utils.files import check_unused

K = TypeVar("K")
T = TypeVar("T")


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


def save_new(schedule: CacheSchedule, path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Save a schedule, unless the file is there and holds something else.

    A file that holds the same schedule is kept, and so are the metrics that were measured with it.

    Raises:
        EcadError: the file holds something else, or cannot be written.
    """
    if overwrite or not Path(path).is_file():
        schedule.save(path)
        return
    try:
        known = CacheSchedule.load(path).replace(metrics=schedule.metrics)
    except ScheduleError:
        known = None
    if known != schedule:
        check_unused(path)


def use_each(
    schedules: Mapping[K, CacheSchedule], use: Callable[[K, CacheSchedule], T], model: str
) -> tuple[dict[K, T], dict[K, str]]:
    """Use each schedule of a folder; those that do not fit the model are left out, unless it is the only one.

    Args:
        schedules: by their file or name.
        use: called with a key and its schedule; raises ScheduleError if the schedule does not fit.
        model: what they should fit, for the message.

    Returns:
        key -> what `use` returned, and key -> why the schedule is left out.

    Raises:
        ScheduleError: the only schedule does not fit.
        EcadError: none of several schedules fits.

    >>> from ecad.schedules import heuristics, pixart_sites
    >>> def use(name: str, schedule: CacheSchedule) -> int:
    ...     if schedule.num_steps != 20:
    ...         raise ScheduleError("this model has 20 steps")
    ...     return schedule.num_steps
    >>> none = {f"{steps}.json": heuristics.none(pixart_sites(1), steps) for steps in (10, 20)}
    >>> use_each(none, use, "a model")
    ({'20.json': 20}, {'10.json': 'this model has 20 steps'})
    """
    used: dict[K, T] = {}
    misfits: dict[K, str] = {}
    for key, schedule in schedules.items():
        try:
            used[key] = use(key, schedule)
        except ScheduleError as error:
            if len(schedules) == 1:
                raise
            misfits[key] = str(error)
    if not used:
        key, reason = next(iter(misfits.items()))
        raise EcadError(f"none of {len(schedules)} schedules fits {model}; the first: {key}: {reason}")
    return used, misfits


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
    """A schedule without its metrics, name and attributes: what the metrics depend on."""
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
