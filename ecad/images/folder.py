"""A folder of generated images: a manifest that says what each file is, and PNG files that are whole or not there."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from PIL import Image

from ecad.errors import EcadError
from ecad.utils.files import parse_json, stays_inside, write_atomic

MANIFEST = "manifest.jsonl"
# Length, name and checksum of a PNG file's last chunk; Pillow does without.
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


def begin_folder(
    folder: Path,
    settings: Mapping[str, Any],
    rows: Iterable[tuple[str, Mapping[str, Any]]],
    scratch: Path,
    replace: bool = False,
) -> None:
    """Write the manifest of images that are about to be made: whatever image is there later, a line tells about it.

    The manifest depends on what is asked for only, so several processes may begin the same folder.

    Args:
        folder: of the images.
        settings: what all of them depend on, as JSON values; the manifest's first line.
        rows: each file relative to the folder, and what it is, as JSON values; what an earlier manifest says is kept.
        scratch: where temporary files go.
        replace: images of another kind make room instead of being refused.

    Raises:
        EcadError: the folder holds images of another kind, or such that no manifest tells about.
    """
    with _tables(folder) as tables:
        # First the files, then the manifest: another process writes them in the other order.
        tables.executemany(
            "INSERT INTO asked VALUES (?, ?, ?)",
            ((file, _line(file, row), os.path.exists(os.path.join(folder, file))) for file, row in rows),
        )
        known_settings = dict(settings)
        if (folder / MANIFEST).exists():
            known_settings, known = _read(folder)
            tables.executemany("INSERT OR REPLACE INTO known VALUES (?, ?)", ((f, _line(f, row)) for f, row in known))
        problem = _conflict(tables, settings, known_settings)
        if problem and not replace:
            raise EcadError(f"{folder}: {problem}; choose another folder, or delete this one")
        if problem:
            (folder / MANIFEST).unlink(missing_ok=True)
            for (file,) in tables.execute("SELECT file FROM known UNION SELECT file FROM asked WHERE there"):
                (folder / file).unlink(missing_ok=True)
            tables.execute("DELETE FROM known")
        both = "SELECT file, line FROM known UNION SELECT file, line FROM asked ORDER BY file"
        lines = chain(
            [json.dumps({"settings": dict(settings)}, ensure_ascii=False)], (line for _, line in tables.execute(both))
        )
        write_atomic(folder / MANIFEST, (f"{line}\n" for line in lines), scratch)


def read_manifest(folder: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The settings that a folder's images were made with, and file -> what it is (made or still to be made).

    Raises:
        EcadError: there is no manifest, or it is damaged.
    """
    settings, rows = _read(folder)
    return settings, dict(rows)


def _read(folder: Path) -> tuple[dict[str, Any], Iterator[tuple[str, dict[str, Any]]]]:
    """`read_manifest`, one row at a time."""
    rows = _rows(folder)
    return next(rows)[1], rows


def _rows(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The settings, under no name, and then each file of a manifest and what it is."""
    path = folder / MANIFEST
    try:
        with open(path, encoding="utf-8", newline="\n") as stream:
            lines = (parse_json(line) for line in stream if line != "\n")
            first: Any = next(lines, {})
            yield "", dict(first["settings"])
            for line in lines:
                if not stays_inside(file := line.pop("file")):
                    raise ValueError(f"a file named {file!r}")
                yield file, line
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or f"{type(error).__name__}: {error}"
        raise EcadError(f"{path}: expected a manifest of images, found {reason}; delete the folder") from error


@contextmanager
def _tables(folder: Path) -> Iterator[sqlite3.Connection]:
    """Tables for the rows that are asked for and those of a manifest: SQLite takes to a file what are too many."""
    try:
        with closing(sqlite3.connect("", isolation_level=None)) as tables:
            tables.execute("CREATE TABLE asked (file TEXT PRIMARY KEY, line TEXT, there INTEGER) WITHOUT ROWID")
            tables.execute("CREATE TABLE known (file TEXT PRIMARY KEY, line TEXT) WITHOUT ROWID")
            tables.execute("BEGIN")
            yield tables
    except (OSError, sqlite3.Error, UnicodeError) as error:
        raise EcadError(f"{folder / MANIFEST}: cannot write this file: {error}") from error


def _line(file: str, row: Mapping[str, Any]) -> str:
    return json.dumps({"file": file, **row}, ensure_ascii=False)


def is_whole(path: Path, size: tuple[int, int]) -> bool:
    """Whether a PNG file is there to its last byte, undamaged, and of a size (width, height) in pixels."""
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            found: tuple[int, int] = image.size
            image.verify()
    # Pillow says "damaged" in as many ways as a file can be.
    except (OSError, SyntaxError, ValueError, EOFError, zlib.error, Image.DecompressionBombError):
        return False
    return found == size and content.endswith(_PNG_END)


def _conflict(tables: sqlite3.Connection, settings: Mapping[str, Any], known_settings: Mapping[str, Any]) -> str | None:
    """Why the images to be made cannot stand beside those that are there; None if they can."""
    for name in {**known_settings, **settings}:
        before, now = known_settings.get(name), settings.get(name)
        if before != now:
            return f"holds images made with {name} {before!r}, now it is {now!r}"
    other = "SELECT file, known.line FROM known JOIN asked USING (file) WHERE known.line != asked.line"
    for file, line in tables.execute(other):
        return f"holds {file} of another prompt, {json.loads(line).get('prompt')!r}"
    unknown = "SELECT file FROM asked WHERE there AND file NOT IN (SELECT file FROM known)"
    for (file,) in tables.execute(unknown):
        return f"holds {file}, which its manifest says nothing about"
    return None
