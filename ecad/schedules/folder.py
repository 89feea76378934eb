"""Schedules given as one file or as a folder of files."""

from __future__ import annotations

import os
from pathlib import Path

from ecad.errors import EcadError
from ecad.schedules.schedule import CacheSchedule


def load_schedules(path: str | os.PathLike[str]) -> dict[str, CacheSchedule]:
    """Read a schedule file, or every `*.json` of a folder, in the order of their names.

    Returns:
        file name without its suffix -> schedule.

    Raises:
        EcadError: nothing is there.
        ScheduleError: a file is malformed.
    """
    place = Path(path)
    files = sorted(place.glob("*.json")) if place.is_dir() else [place]
    if not files:
        raise EcadError(f"{place}: expected a schedule file or a folder with some (*.json), found none")
    return {file.stem: CacheSchedule.load(file) for file in files}
