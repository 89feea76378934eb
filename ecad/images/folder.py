"""A folder of generated images: a manifest that describes each file, and PNG files that are written atomically."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from PIL import Image

from ecad.errors import EcadError, EcadWarning, OtherResultsError
from ecad.utils.files import parse_json, stays_inside, write_atomic

MANIFEST = "manifest.jsonl"
# Length, name and checksum of a PNG file's last chunk, which Pillow does not check.
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


def begin_folder(
    folder: Path,
    settings: Mapping[str, object],
    rows: Iterable[tuple[str, Mapping[str, object]]],
    scratch: Path,
    overwrite: bool = False,
    *,
    older: Mapping[str, object] | None = None,
    made_with: Mapping[str, str] | None = None,
) -> None:
    """Write the manifest of images before they are generated, so that every image has a line.

    The manifest depends on the request only, so several processes may begin the same folder.

    Args:
        folder: Folder of the images.
        settings: What all images depend on, as JSON values; the manifest's first line.
        rows: (file relative to the folder, its description as JSON values). Rows of an earlier manifest stay.
        scratch: Folder for temporary files.
        overwrite: Whether images with other settings are deleted instead of refused; a warning says how many.
        older: The settings in the format of an earlier release, which named fewer. Images with these settings stay, and
            a warning says so. None if these settings do not identify the images.
        made_with: Package or device -> its version, which changes images by rounding only. A warning names versions
            that differ from those of the folder's images.

    Raises:
        OtherResultsError: The folder holds images with other settings, or images that no manifest mentions.
    """
    with _tables(folder) as tables:
        # Files are looked at before the manifest, because other processes write the manifest first.
        tables.executemany(
            "INSERT INTO asked VALUES (?, ?, ?)",
            ((file, _line(file, row), os.path.exists(os.path.join(folder, file))) for file, row in rows),
        )
        now = Head(dict(settings), {name: [version] for name, version in (made_with or {}).items()})
        before = now
        if (folder / MANIFEST).exists():
            before, known = _read(folder)
            tables.executemany("INSERT OR REPLACE INTO known VALUES (?, ?)", ((f, _line(f, row)) for f, row in known))
        is_older = older is not None and not overwrite and before.settings == dict(older)
        problem = _conflict(tables, before.settings if is_older else now.settings, before.settings)
        if problem and not overwrite:
            raise OtherResultsError(folder, problem)
        if problem:
            _delete_images(folder, tables, problem)
            before = now
        head = _joined(folder, before, now) if not is_older else before
        if is_older:
            missing = ", ".join(name for name in now.settings if name not in before.settings)
            _warn(f"{folder}: the images are from an earlier release, whose manifest does not name {missing}; kept")
        both = "SELECT file, line FROM known UNION SELECT file, line FROM asked ORDER BY file"
        lines = chain([head.line()], (line for _, line in tables.execute(both)))
        write_atomic(folder / MANIFEST, (f"{line}\n" for line in lines), scratch)


@dataclass(frozen=True)
class Head:
    """A manifest's first line.

    Args:
        settings: What all images depend on.
        made_with: Package or device -> all versions that images were generated with, the oldest first.
    """

    settings: dict[str, object]
    made_with: dict[str, list[str]] = field(default_factory=dict)

    def line(self) -> str:
        """The line without its line end."""
        made_with = {"made_with": self.made_with} if self.made_with else {}
        return json.dumps({"settings": self.settings, **made_with}, ensure_ascii=False)


def _joined(folder: Path, before: Head, now: Head) -> Head:
    """The head of a manifest to which this run adds images; warns of images generated with other versions."""
    joined = {name: list(found) for name, found in before.made_with.items()}
    for name, [version] in now.made_with.items():
        if version not in joined.setdefault(name, []):
            joined[name].append(version)
    changed = [
        f"{name} {', '.join(before.made_with[name])} (now {version})"
        for name, [version] in now.made_with.items()
        if before.made_with.get(name, [version]) != [version]
    ]
    if changed:
        _warn(f"{folder}: holds images generated with {', '.join(changed)}; they are kept, and may differ by rounding")
    return Head(now.settings, joined)


def _delete_images(folder: Path, tables: sqlite3.Connection, problem: str) -> None:
    """Delete the images that the manifest names or that new images replace; a warning says how many."""
    (folder / MANIFEST).unlink(missing_ok=True)
    count = 0
    for (file,) in tables.execute("SELECT file FROM known UNION SELECT file FROM asked WHERE there"):
        count += (folder / file).exists()
        (folder / file).unlink(missing_ok=True)
    tables.execute("DELETE FROM known")
    if count:
        warnings.warn(f"{folder}: {problem}: deleted {count} images", RuntimeWarning, stacklevel=3)


def _warn(text: str) -> None:
    warnings.warn(EcadWarning(text), stacklevel=4)


def read_manifest(folder: Path) -> tuple[dict[str, object], dict[str, dict[str, object]]]:
    """The settings of a folder's images, and file -> its description, for existing and missing files.

    Raises:
        EcadError: there is no manifest, or it is damaged.
    """
    head, rows = _read(folder)
    return head.settings, dict(rows)


def _read(folder: Path) -> tuple[Head, Iterator[tuple[str, dict[str, Any]]]]:
    """`read_manifest`, one row at a time."""
    rows = _rows(folder)
    _, first = next(rows)
    return Head(first["settings"], first["made_with"]), rows


def _rows(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The head under an empty name, and then each file of a manifest with its description."""
    path = folder / MANIFEST
    try:
        with open(path, encoding="utf-8", newline="\n") as stream:
            lines = (parse_json(line) for line in stream if line != "\n")
            first: Any = next(lines, {})
            made_with = {str(name): [str(one) for one in found] for name, found in first.get("made_with", {}).items()}
            yield "", {"settings": dict(first["settings"]), "made_with": made_with}
            for line in lines:
                if not stays_inside(file := line.pop("file")):
                    raise ValueError(f"a file named {file!r}")
                yield file, line
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or f"{type(error).__name__}: {error}"
        raise EcadError(f"{path}: cannot read this manifest of images: {reason}; delete the folder") from error


@contextmanager
def _tables(folder: Path) -> Iterator[sqlite3.Connection]:
    """SQLite tables of the requested rows and the manifest's rows; SQLite moves large ones to a temporary file."""
    try:
        with closing(sqlite3.connect("", isolation_level=None)) as tables:
            tables.execute("CREATE TABLE asked (file TEXT PRIMARY KEY, line TEXT, there INTEGER) WITHOUT ROWID")
            tables.execute("CREATE TABLE known (file TEXT PRIMARY KEY, line TEXT) WITHOUT ROWID")
            tables.execute("BEGIN")
            yield tables
    except (OSError, sqlite3.Error, UnicodeError) as error:
        raise EcadError(f"{folder / MANIFEST}: cannot write this file: {error}") from error


def _line(file: str, row: Mapping[str, object]) -> str:
    return json.dumps({"file": file, **row}, ensure_ascii=False)


def is_whole(path: Path, size: tuple[int, int]) -> bool:
    """Whether a PNG file is complete, undamaged, and has a size (width, height) in pixels."""
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            found: tuple[int, int] = image.size
            image.verify()
    except Exception:  # Pillow raises many kinds of errors for damaged files
        return False
    return found == size and content.endswith(_PNG_END)


def _first_difference(before: Mapping[str, object], now: Mapping[str, object]) -> tuple[str, object, object] | None:
    """The path of the first setting that differs, and its values before and now."""
    for name in {**before, **now}:
        one, other = before.get(name), now.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            if found := _first_difference(one, other):
                return f"{name}.{found[0]}", *found[1:]
        elif one != other:
            return name, one, other
    return None


def _conflict(
    tables: sqlite3.Connection, settings: Mapping[str, object], known_settings: Mapping[str, object]
) -> str | None:
    """Why the new images cannot be added to the existing ones; None if they can."""
    if differing := _first_difference(known_settings, settings):
        name, before, now = differing
        if name == "plan":
            return "holds images made under another schedule"
        return f"holds images made with {name} {before!r}, now it is {now!r}"
    other = "SELECT file, known.line FROM known JOIN asked USING (file) WHERE known.line != asked.line"
    for file, line in tables.execute(other):
        return f"holds {file}, an image of another prompt, {json.loads(line).get('prompt')!r}"
    unknown = "SELECT file FROM asked WHERE there AND file NOT IN (SELECT file FROM known)"
    for (file,) in tables.execute(unknown):
        return f"holds {file}, which is not in its manifest"
    return None
