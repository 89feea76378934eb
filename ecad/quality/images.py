"""Pictures in folders: finding them, reading them, telling one schedule's from several."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image

from ecad.errors import EcadError
from ecad.image_generators.image_folder import MANIFEST

# Each uint8 (height, width, 3); an array (n, height, width, 3) is as good as a list.
Images = Sequence[np.ndarray] | np.ndarray

_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}


def image_files(folder: str | os.PathLike[str]) -> list[Path]:
    """The pictures in a folder and all below it, in order of their names; hidden ones are left out.

    Raises:
        EcadError: it is no folder, or holds no picture.
    """
    root = Path(folder)
    if not root.is_dir():
        raise EcadError(f"{root}: expected a folder of images, found {'a file' if root.exists() else 'nothing'}")
    found = []
    for place, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(place, name) for name in sorted(files) if _is_picture(name)]
    if not found:
        raise EcadError(f"{root}: expected images ({', '.join(sorted(_SUFFIXES))}), found none")
    return found


def read_image(file: Path) -> np.ndarray:
    """A picture as uint8 (height, width, 3); raises EcadError if it is torn or no picture."""
    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise EcadError(f"{file}: cannot read this image: {error}; make it again") from error


def read_images(files: Sequence[Path]) -> list[np.ndarray]:
    """Many pictures, read side by side: decoding does not hold Python's lock."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(read_image, files))


def check_one_schedule(folder: Path, files: Iterable[Path]) -> None:
    """Raise EcadError if a folder holds the images of several schedules.

    They are told by their manifests, or where there are none by names that come again in several sub-folders.

    Args:
        folder: where the images are.
        files: the images.
    """
    names: dict[str, set[Path]] = {}
    for file in files:
        first, *rest = file.relative_to(folder).parts
        if rest:
            names.setdefault(first, set()).add(Path(*rest))
    for one, other in combinations(names, 2):
        if names[one] & names[other] or all((folder / name / MANIFEST).exists() for name in (one, other)):
            raise EcadError(
                f"{folder}: expected the images of one schedule, found those of {one!r} and of {other!r}; "
                f"give one of its {len(names)} folders, or --each to take each for itself"
            )


def _is_picture(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in _SUFFIXES
