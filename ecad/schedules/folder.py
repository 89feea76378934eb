"""Schedules given as one file or as a folder of files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
