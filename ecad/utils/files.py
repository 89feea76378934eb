"""Files: atomic writes, output folders, locks, safe file names, and JSON."""

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

# File systems allow 255 bytes. The rest is left for seeds and suffixes.
_MAX_NAME_BYTES = 180


def write_atomic(path: str | os.PathLike[str], data: bytes | str | Iterable[str], scratch: Path | None = None) -> None:
    """Write a whole file, or leave the old one untouched.

    Args:
        path: the file; missing parent folders are created. A symbolic link is followed.
        data: the content, whole or in pieces. Text is written as UTF-8 with its line ends unchanged.
        scratch: a folder on the same file system for the temporary file, which stays there if the process is killed.
            By default the file's own folder.

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


def write_new(path: str | os.PathLike[str], text: str, overwrite: bool = False) -> None:
    """`write_atomic`, unless a file is there that holds something else.

    Raises:
        EcadError: such a file is there, or the file cannot be written.
    """
    place = Path(path)
    if place.is_file() and not overwrite and place.read_bytes() != text.encode():
        check_unused(place)
    write_atomic(place, text)


def check_unused(path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Refuse the name of a file that exists, before any work is spent on its content.

    Raises:
        EcadError: the file exists, and is not to be overwritten.
    """
    if not overwrite and Path(path).is_file():
        raise EcadError(f"{os.fspath(path)}: this file exists; choose another name, or give `overwrite` to replace it")


def make_folder(path: str | os.PathLike[str]) -> None:
    """Create a folder and check that files can be written to it, before any work is spent on its content.

    Raises:
        EcadError: the folder cannot be created or written to.
    """
    folder = Path(path)
    probe = folder / f".{secrets.token_hex(8)}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        reason = error.strerror or str(error)
        raise EcadError(f"{folder}: cannot write to this folder: {reason}; choose another folder") from error


@contextlib.contextmanager
def output_folder(path: str | os.PathLike[str]) -> Iterator[None]:
    """`make_folder` as a context: if the block fails, a new folder that is still empty is removed."""
    existed = Path(path).exists()
    make_folder(path)
    try:
        yield
    except BaseException:
        if not existed:
            with contextlib.suppress(OSError):
                Path(path).rmdir()
        raise


@contextlib.contextmanager
def locked(lock: Path, busy: str) -> Iterator[None]:
    """Hold a lock that only one process can hold and that the system releases however the process ends (SQLite's).

    Args:
        lock: a file for this purpose only, in an existing folder; created if missing.
        busy: the error message if another process holds the lock.

    Raises:
        EcadError: another process holds the lock, or the file cannot be created.
    """
    with contextlib.ExitStack() as undo:
        try:
            connection = undo.enter_context(contextlib.closing(sqlite3.connect(lock, isolation_level=None, timeout=0)))
            connection.execute("PRAGMA journal_mode = MEMORY")  # no second file: nothing is ever written
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.DatabaseError as error:
            reason = busy if "locked" in str(error) else f"{lock}: cannot lock this file: {error}"
            raise EcadError(reason) from error
        yield


def stays_inside(name: object) -> bool:
    """Whether a name from an untrusted file is a relative path inside a folder, on any operating system.

    >>> [stays_inside(name) for name in ("a/b.png", "../a", "/a", "a//b", "C:/a", "a\\\\b", 3, "")]
    [True, False, False, False, False, False, False, False]
    """
    if not isinstance(name, str) or not name.isprintable() or set(name) & set('\\:*?"<>|'):
        return False
    return all(
        part not in ("", ".", "..") and not is_reserved(part) and len(part.encode()) <= 255 for part in name.split("/")
    )


def is_reserved(name: str) -> bool:
    """Whether Windows reserves a file name for a device, whatever the suffix.

    >>> [is_reserved(name) for name in ("CON", "nul.txt", "com1", "console")]
    [True, True, True, False]
    """
    return re.fullmatch(r"(?is)(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]) *(\..*)?", name) is not None


def as_file_name(text: str) -> str:
    """Encode a text as part of a file name.

    Characters that some file system refuses become `%XX`, and so does the second of two underscores, which separate
    the parts of an image's name.

    Raises:
        EcadError: the text is too long.

    >>> as_file_name("a/b__c"), as_file_name("../CON"), as_file_name("con")
    ('a%2Fb_%5Fc', '%2E.%2FCON', '%63on')
    """
    first = r"|^." if is_reserved(text) else ""
    name = re.sub(
        rf"[^\w.-]|(?<=_)_|^\.|\.${first}", lambda found: "".join(f"%{b:02X}" for b in found[0].encode()), text
    )
    if len(name.encode()) > _MAX_NAME_BYTES:
        raise EcadError(f"{text[:40]!r}...: too long for a file name; use a shorter one")
    return name


def parse_json(content: bytes | str) -> Any:
    """`json.loads` that raises ValueError for all invalid JSON, including JSON that is nested too deeply."""
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
