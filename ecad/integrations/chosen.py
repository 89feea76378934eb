"""The schedule that a host runs: from a schedule file, or picked from a front."""

from __future__ import annotations

import os
from pathlib import Path

from ecad.schedules import CacheSchedule
from ecad.schedules.front import Front


def chosen_schedule(
    path: str | os.PathLike[str], speedup: float | None = None, quality: float | None = None
) -> CacheSchedule:
    """Read a schedule, or pick one from a front as `Front.pick` does.

    Args:
        path: a schedule's file, for which neither `speedup` nor `quality` means anything, or a front's.
        speedup: how many times cheaper than an uncached image, at least.
        quality: validation quality, at least, in units of the front's scorer.

    Raises:
        ScheduleError: the file cannot be read or is malformed.
        EcadError: no schedule of the front is that cheap or that good.
    """
    if not _is_front(Path(path)):
        return CacheSchedule.load(path)
    return Front.load(path).pick(speedup=speedup, quality=quality)


def _is_front(path: Path) -> bool:
    """Whether a file says that it is a front; what cannot be read is not, and says so when it is loaded."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            return '"ecad front' in file.read(200)
    except (OSError, UnicodeDecodeError):
        return False
