"""Writing files so that no reader ever sees half of one, and no two writers write at once."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ecad.errors import EcadError


def write_atomic(path: str | os.PathLike[str], data: bytes | str | Iterable[str], scratch: Path | None = None) -> None:
    """Write a whole file or leave what was there untouched.

    Args:
        path: the file; its missing parent folders are made. A symbolic link is followed.
        data: the content, whole or piece by piece; text is written as UTF-8, line ends as they are.
        scratch: a folder of the same file system, where a killed process may leave its temporary file; by default the
            file's own folder.

    Raises:
        EcadError: the file cannot be written.
    """
    target = Path(os.path.realpath(path))
    temporary = (scratch or target.parent) / f".{secrets.token_hex(8)}.tmp"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            # Mode "x" gives the permissions that the user's umask asks for, which tempfile would not.
            with open(temporary, "xb") as stream:
                for piece in [data] if isinstance(data, str | bytes) else data:
                    stream.write(piece.encode("utf-8") if isinstance(piece, str) else piece)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise EcadError(f"{os.fspath(path)}: cannot write this file: {reason}") from error


def stays_inside(name: object) -> bool:
    """Whether a name from a file of unknown origin is that of a file in a folder, whichever system the folder is on.

    >>> [stays_inside(name) for name in ("a/b.png", "../a", "/a", "a//b", "C:/a", "a\\\\b", 3, "")]
    [True, False, False, False, False, False, False, False]
    """
    if not isinstance(name, str) or not name.isprintable() or set(name) & set('\\:*?"<>|'):
        return False
    return all(
        part not in ("", ".", "..") and not is_device(part) and len(part.encode()) <= 255 for part in name.split("/")
    )


def is_device(name: str) -> bool:
    """Whether Windows takes a file's name for one of its devices, whatever the suffix.

    >>> [is_device(name) for name in ("CON", "nul.txt", "com1", "console")]
    [True, True, True, False]
    """
    return re.fullmatch(r"(?is)(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]) *(\..*)?", name) is not None


def parse_json(content: bytes | str) -> Any:
    """`json.loads` that raises ValueError for anything that is no JSON, nested beyond all measure too."""
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def make_folder(path: str | os.PathLike[str]) -> None:
    """Make a folder and see that files can be written into it, before the work whose results shall go there.

    Raises:
        EcadError: it cannot be made, or nothing can be written into it.
    """
    folder = Path(path)
    probe = folder / f".{secrets.token_hex(8)}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        reason = error.strerror or str(error)
        raise EcadError(f"{folder}: expected a folder to write to: {reason}; choose another one") from error


@contextlib.contextmanager
def made_folder(path: str | os.PathLike[str]) -> Iterator[None]:
    """`make_folder` for a `with` block; one that fails before anything is in a new folder takes it away again."""
    was_there = Path(path).exists()
    make_folder(path)
    try:
        yield
    except BaseException:
        if not was_there:
            with contextlib.suppress(OSError):
                Path(path).rmdir()
        raise


@contextlib.contextmanager
def held(lock: Path, busy: str) -> Iterator[None]:
    """Hold a lock that only one process can, and that the system takes back however the process ends: SQLite's.

    Args:
        lock: a file for nothing else, in a folder that is there; made if need be.
        busy: what to say if another process holds it.

    Raises:
        EcadError: another process holds it, or it cannot be made.
    """
    with contextlib.ExitStack() as undo:
        try:
            connection = undo.enter_context(contextlib.closing(sqlite3.connect(lock, isolation_level=None, timeout=0)))
            connection.execute("PRAGMA journal_mode = MEMORY")  # no second file: nothing is ever written
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.DatabaseError as error:
            reason = busy if "locked" in str(error) else f"{lock}: cannot be locked: {error}"
            raise EcadError(reason) from error
        yield


# What is left of 255 bytes, the most that file systems take, is for the seeds and the suffix.
_LONGEST = 180


def as_file_name(text: str) -> str:
    """A text as part of a file name: what some file system refuses becomes `%XX`, and so does what would end an id.

    Raises:
        EcadError: it is too long.

    >>> as_file_name("a/b__c"), as_file_name("../CON"), as_file_name("con")
    ('a%2Fb_%5Fc', '%2E.%2FCON', '%63on')
    """
    first = r"|^." if is_device(text) else ""
    name = re.sub(
        rf"[^\w.-]|(?<=_)_|^\.|\.${first}", lambda found: "".join(f"%{b:02X}" for b in found[0].encode()), text
    )
    if len(name.encode()) > _LONGEST:
        raise EcadError(f"{text[:40]!r}...: too long for a file name; give it a shorter one")
    return name
