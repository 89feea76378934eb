"""A folder of generated images: a manifest that says what each file is, and PNG files that are whole or not there."""

from __future__ import annotations

import io
import json
import shutil
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from ecad.errors import EcadError
from ecad.files import held, make_folder, parse_json, stays_inside, write_atomic

MANIFEST = "manifest.jsonl"
# Batches of images that may wait for the disk before the denoiser does.
_WAITING = 2
# Length, name and checksum of a PNG file's last chunk; Pillow does without.
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


def begin_folder(
    folder: Path,
    settings: Mapping[str, Any],
    rows: Mapping[str, Mapping[str, Any]],
    scratch: Path,
    replace: bool = False,
) -> None:
    """Write the manifest of images that are about to be made: whatever image is there later, a line tells about it.

    The manifest depends on what is asked for only, so several processes may begin the same folder.

    Args:
        folder: of the images.
        settings: what all of them depend on, as JSON values; the manifest's first line.
        rows: file relative to the folder -> what it is, as JSON values; what an earlier manifest says is kept.
        scratch: where temporary files go.
        replace: images of another kind make room instead of being refused.

    Raises:
        EcadError: the folder holds images of another kind, or such that no manifest tells about.
    """
    # First the files, then the manifest: another process writes them in the other order.
    there = [file for file in rows if (folder / file).exists()]
    known_settings, known = read_manifest(folder) if (folder / MANIFEST).exists() else (dict(settings), {})
    problem = _conflict(folder, settings, rows, known_settings, known, there)
    if problem and not replace:
        raise EcadError(f"{folder}: {problem}; choose another folder, or delete this one")
    if problem:
        (folder / MANIFEST).unlink(missing_ok=True)
        for file in {*known, *there}:
            (folder / file).unlink(missing_ok=True)
        known = {}
    lines = chain(
        [{"settings": dict(settings)}], ({"file": file, **row} for file, row in sorted({**known, **rows}.items()))
    )
    write_atomic(folder / MANIFEST, (json.dumps(line, ensure_ascii=False) + "\n" for line in lines), scratch)


def read_manifest(folder: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The settings that a folder's images were made with, and file -> what it is (made or still to be made).

    Raises:
        EcadError: there is no manifest, or it is damaged.
    """
    path = folder / MANIFEST
    try:
        first, *lines = [parse_json(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        settings, rows = dict(first["settings"]), {line.pop("file"): line for line in lines}
        if odd := [file for file in rows if not stays_inside(file)]:
            raise ValueError(f"a file named {odd[0]!r}")
        return settings, rows
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or f"{type(error).__name__}: {error}"
        raise EcadError(f"{path}: expected a manifest of images, found {reason}; delete the folder") from error


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


@contextmanager
def scratch_folder(parent: Path, shard: tuple[int, int]) -> Iterator[Path]:
    """A folder for the temporary files of one shard of a run, gone in the end; one process at a time has it.

    A killed run leaves its own behind: the same shard empties it, and whoever does all the work alone, everybody's.

    Raises:
        EcadError: it cannot be made, or another process is at work on the same images.
    """
    part, parts = shard
    own = parent / f".partial-{part}-of-{parts}"
    make_folder(own)
    with _held(own):
        for left in set(parent.glob(".partial-*")) - {own} if parts == 1 else ():
            with _held(left):
                shutil.rmtree(left, ignore_errors=True)
        for file in own.glob(".*.tmp"):
            file.unlink(missing_ok=True)
        try:
            yield own
        finally:
            shutil.rmtree(own, ignore_errors=True)


def _held(scratch: Path) -> AbstractContextManager[None]:
    busy = f"{scratch.parent}: another process makes these images: expected to be the only one"
    return held(scratch / "lock", f"{busy}; wait until it ends, stop it, or use another folder")


class ImageWriter:
    """Writes images as PNG files while the caller goes on; a context that ends when all are there.

    Args:
        scratch: where temporary files go.

    Raises:
        EcadError: on a later call or at the end, if a file could not be written.
    """

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="ecad-png")
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> ImageWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()
        if kind is None:
            self._settle(0)

    def write(self, images: np.ndarray, paths: Sequence[Sequence[Path]]) -> None:
        """Write images, uint8 (n, height, width, 3), each to one path or more."""
        self._waiting.append(self._pool.submit(_write, images, paths, self._scratch))
        self._settle(_WAITING)

    def _settle(self, most: int) -> None:
        while len(self._waiting) > most:
            self._waiting.popleft().result()


def _write(images: np.ndarray, paths: Sequence[Iterable[Path]], scratch: Path) -> None:
    for image, targets in zip(images, paths, strict=True):
        content = io.BytesIO()
        Image.fromarray(image).save(content, format="PNG")
        for target in targets:
            write_atomic(target, content.getvalue(), scratch)


def _conflict(
    folder: Path,
    settings: Mapping[str, Any],
    rows: Mapping[str, Mapping[str, Any]],
    known_settings: Mapping[str, Any],
    known: Mapping[str, Mapping[str, Any]],
    there: Sequence[str],
) -> str | None:
    """Why the images to be made cannot stand beside those that are there; None if they can."""
    for name in {**known_settings, **settings}:
        before, now = known_settings.get(name), settings.get(name)
        if before != now:
            return f"holds images made with {name} {before!r}, now it is {now!r}"
    for file, row in rows.items():
        if file in known and known[file] != row:
            return f"holds {file} of another prompt, {known[file].get('prompt')!r}"
    if unknown := [file for file in there if file not in known]:
        return f"holds {unknown[0]}, which its manifest says nothing about"
    return None
