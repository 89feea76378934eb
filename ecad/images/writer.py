"""Writes PNG files in a background thread, through a scratch folder."""

from __future__ import annotations

import io
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType

import numpy as np
from PIL import Image

from ecad.utils.files import locked, make_folder, write_atomic

# Batches of images that may wait for the disk before the caller waits.
_WAITING = 2


@contextmanager
def scratch_folder(parent: Path, shard: tuple[int, int]) -> Iterator[Path]:
    """A locked folder for the temporary files of one shard of a run, deleted at the end.

    A killed run leaves its folder behind. The next run of the same shard empties it, and a run without shards deletes
    the folders of all shards.

    Raises:
        EcadError: the folder cannot be created, or another process makes the same images.
    """
    part, parts = shard
    own = parent / f".partial-{part}-of-{parts}"
    make_folder(own)
    with _locked(own):
        for left in set(parent.glob(".partial-*")) - {own} if parts == 1 else ():
            with _locked(left):
                shutil.rmtree(left, ignore_errors=True)
        for file in own.glob(".*.tmp"):
            file.unlink(missing_ok=True)
        try:
            yield own
        finally:
            shutil.rmtree(own, ignore_errors=True)


def _locked(scratch: Path) -> AbstractContextManager[None]:
    busy = f"{scratch.parent}: another process is making these images"
    return locked(scratch / "lock", f"{busy}; wait until it ends, stop it, or use another folder")


class ImageWriter:
    """Writes images as PNG files in a background thread; a context manager that waits for all files at its end.

    Args:
        scratch: folder for temporary files.

    Raises:
        EcadError: a file could not be written; raised by a later call or at the end.
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
        """Write images, uint8 (n, height, width, 3), each to one or more paths."""
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
