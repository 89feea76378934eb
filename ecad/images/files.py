"""Pictures in folders: finding them, reading them, telling one schedule's from several."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image

from ecad.errors import EcadError
from ecad.images.folder import MANIFEST

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
    """A picture as uint8 (height, width, 3); raises EcadError if it is torn, no picture or too large to be one."""
    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise EcadError(f"{file}: cannot read this image: {error}; make it again") from error


def read_images(files: Sequence[Path]) -> list[np.ndarray]:
    """Many pictures, read side by side: decoding does not hold Python's lock. Blank ones are warned of."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        images = list(pool.map(read_image, files))
    if blank := [file for file, image in zip(files, images, strict=True) if (image == image[0, 0]).all()]:
        warnings.warn(
            f"{blank[0]}: one colour throughout, like {len(blank)} of {len(files)} images read together; they count "
            "like any other: look at them",
            RuntimeWarning,
            stacklevel=2,
        )
    return images


def by_schedule(folder: str | os.PathLike[str], each: bool = False) -> dict[Path, list[Path]]:
    """The images of one schedule under its folder; with `each`, those of several under theirs.

    A schedule's folder is told by its manifest; where there is none, each folder right below the given one may be one,
    and two are if images in them have the same names.

    Args:
        folder: where the images are.
        each: take each schedule for itself.

    Raises:
        EcadError: there are no images, or those of several schedules and not `each`.
    """
    root = Path(folder)
    files = image_files(root)
    owners = {place: _schedule_folder(root, place) for place in {file.parent for file in files}}
    found: dict[Path, list[Path]] = {}
    for file in files:
        found.setdefault(owners[file.parent], []).append(file)
    if each:
        return found
    for one, other in combinations(found, 2):
        same_names = {file.relative_to(one) for file in found[one]} & {file.relative_to(other) for file in found[other]}
        if same_names or all((place / MANIFEST).exists() for place in (one, other)):
            raise EcadError(
                f"{root}: expected the images of one schedule, found those of {one.relative_to(root)} and of "
                f"{other.relative_to(root)}; give one of its {len(found)} folders, or --each to take each for itself"
            )
    return {root: files}


def _schedule_folder(root: Path, place: Path) -> Path:
    below = [place, *place.parents][: len(place.relative_to(root).parts) + 1]
    return next((folder for folder in below if (folder / MANIFEST).exists()), below[-2] if len(below) > 1 else root)


def _is_picture(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in _SUFFIXES


def read_picture(path: str | os.PathLike[str]) -> np.ndarray:
    """A picture file as uint8 (height, width, 3); raises EcadError if it cannot be read."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise EcadError(f"{os.fspath(path)}: expected a picture: {error}") from error
