"""Pictures in folders: finding them, reading them, telling one schedule's from several."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ecad.errors import EcadError
from ecad.images.folder import MANIFEST
from ecad.utils.published import how_to_fetch

# Each uint8 (height, width, 3); an array (n, height, width, 3) is as good as a list.
Images = Sequence[np.ndarray] | np.ndarray

# TIFF's and EXIF's numbers for these fields.
_PHOTOMETRIC, _ORIENTATION = 262, 274
# Formats that Pillow knows by name but does not decode, or only with another program.
_NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
# Formats that begin with a signature, so that a file of one is recognised whatever its name.
_SIGNED = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "TIFF", "WEBP")
# Suffixes of what ecad itself writes beside images.
_OWN = {".html", ".json", ".jsonl"}
_WHITE = (255, 255, 255, 255)
_DAMAGED = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


@dataclass(frozen=True)
class Found:
    """The pictures of a folder, and what else is in it.

    Args:
        root: The folder.
        files: Its pictures and those of all folders below it, in order of their names.
        passed_over: Kind of a file that is no picture, or of a folder that was not entered -> how many there are.
    """

    root: Path
    files: list[Path]
    passed_over: Mapping[str, int]

    @property
    def kinds(self) -> dict[str, int]:
        """Suffix in lower case -> how many pictures have it, the most frequent first."""
        return dict(Counter(file.suffix.lower() or "no suffix" for file in self.files).most_common())

    def told(self) -> str | None:
        """One line about pictures of several kinds and about what was passed over; None if there is nothing to say."""
        if len(self.kinds) < 2 and not self.passed_over:
            return None
        line = f"{self.root}: {len(self.files)} pictures ({_counted(self.kinds)})"
        return f"{line}; passed over: {_counted(self.passed_over)}" if self.passed_over else line


def find_images(folder: str | os.PathLike[str]) -> Found:
    """Find the pictures in a folder and all below it, links followed: every file that Pillow can open.

    Args:
        folder: The folder.

    Raises:
        EcadError: It is no folder, or holds no picture.
    """
    root = Path(folder)
    if not root.is_dir():
        found = "a file" if root.exists() else "nothing"
        raise EcadError(f"{root}: expected a folder of images, found {found}{how_to_fetch(root)}")
    passed_over: Counter[str] = Counter()
    files = list(_walk(root, frozenset([os.path.realpath(root)]), passed_over))
    if not files:
        rest = f"; passed over: {_counted(passed_over)}" if passed_over else ""
        raise EcadError(f"{root}: expected images, found none{rest}")
    return Found(root, files, dict(passed_over))


def image_files(folder: str | os.PathLike[str]) -> list[Path]:
    """The files of `find_images`, which raises the same errors."""
    return find_images(folder).files


def _walk(folder: Path, above: frozenset[str], passed_over: Counter[str]) -> Iterator[Path]:
    """The pictures of a folder, then those of the folders in it; `above` are the real folders that lead here."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        passed_over["folders that cannot be read"] += 1
        return
    folders = []
    for entry in entries:
        kind = _kind(entry)
        if kind == "folder":
            folders.append(Path(entry.path))
        elif kind == "picture":
            yield Path(entry.path)
        elif kind:
            passed_over[kind] += 1
    for place in folders:
        real = os.path.realpath(place)
        if real in above:
            passed_over["links back to a folder above"] += 1
        else:
            yield from _walk(place, above | {real}, passed_over)


def _kind(entry: os.DirEntry[str]) -> str:
    """What is in a folder: "picture", "folder", what to call it where it is neither; empty for ecad's own files."""
    suffix = Path(entry.name).suffix.lower()
    if entry.name.startswith("."):
        is_own = entry.name.startswith(".partial-") or Path(entry.name.removesuffix(".unfinished")).suffix in _OWN
        return "" if is_own or not (_is_folder(entry) or suffix in _suffixes()) else "hidden"
    if _is_folder(entry):
        return "folder"
    if not os.path.isfile(entry.path):
        return "broken links" if entry.is_symlink() else "special files"
    if suffix in _suffixes() or (suffix not in _OWN and _is_signed(entry.path)):
        return "picture"
    return "" if suffix in _OWN else suffix or "no suffix"


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return os.path.isdir(entry.path)


@cache
def _suffixes() -> frozenset[str]:
    """Suffixes of the formats that Pillow decodes."""
    formats = Image.registered_extensions()
    return frozenset(suffix for suffix, name in formats.items() if name in Image.OPEN and name not in _NOT_DECODED)


def _is_signed(path: str) -> bool:
    try:
        with Image.open(path, formats=_SIGNED):
            return True
    except _DAMAGED:
        return False


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def read_image(file: str | os.PathLike[str]) -> np.ndarray:
    """Read a picture as it looks: turned as its EXIF says, transparency over white, 16-bit values scaled to 8.

    Args:
        file: Any picture that Pillow can open; of several frames the first.

    Returns:
        uint8 (height, width, 3).

    Raises:
        EcadError: The file is torn, no picture, too large to be one, or holds numbers of which nothing says how bright
            they are.
    """
    try:
        with Image.open(file) as image:
            return np.asarray(_as_it_looks(image))
    except UnidentifiedImageError as error:
        raise EcadError(f"{os.fspath(file)}: cannot read this image: it is damaged, or no picture") from error
    except _DAMAGED as error:
        reason = getattr(error, "strerror", None) or error
        raise EcadError(f"{os.fspath(file)}: cannot read this image: {reason}") from error


def _as_it_looks(image: Image.Image) -> Image.Image:
    image = _in_8_bits(image)
    image = ImageOps.exif_transpose(image)
    if _is_transparent(image):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, _WHITE), image)
    return image.convert("RGB")


def _in_8_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey, which Pillow would cut off at 255."""
    if not image.mode.startswith(("I", "F")):
        return image
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        raise ValueError(f"pixels of mode {image.mode} do not say which value is white; convert it to 8 or 16 bits")
    values = np.asarray(image).astype(np.int64)
    if image.format == "TIFF" and image.tag_v2.get(_PHOTOMETRIC) == 0:  # type: ignore[attr-defined]
        values = 65535 - values
    return Image.fromarray(np.round(values / 257).astype(np.uint8))


def _is_transparent(image: Image.Image) -> bool:
    return image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info


def content_digest(file: str | os.PathLike[str]) -> bytes:
    """SHA-256 of a picture's content; what is kept of a picture goes under it.

    Of pictures that earlier releases read otherwise than they look it is another one than theirs.

    Raises:
        EcadError: The file cannot be read.
    """
    try:
        content = Path(file).read_bytes()
    except OSError as error:
        raise EcadError(f"{os.fspath(file)}: cannot read this image: {error.strerror}") from error
    digest = hashlib.sha256(content)
    with suppress(*_DAMAGED), Image.open(io.BytesIO(content)) as image:
        turned = image.getexif().get(_ORIENTATION, 1) != 1
        if turned or image.mode.startswith(("I", "F")) or _is_transparent(image):
            digest.update(b"as it looks")
    return digest.digest()


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


def by_schedule(folder: str | os.PathLike[str] | Found, each: bool = False) -> dict[Path, list[Path]]:
    """The images of one schedule under its folder; with `each`, those of several under theirs.

    A schedule's folder is told by its manifest; where there is none, each folder right below the given one may be one,
    and two are if images in them have the same names.

    Args:
        folder: where the images are, or what was found there.
        each: take each schedule for itself.

    Raises:
        EcadError: there are no images, or those of several schedules and not `each`.
    """
    pictures = folder if isinstance(folder, Found) else find_images(folder)
    root, files = pictures.root, pictures.files
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
                f"{other.relative_to(root)}; give one of its {len(found)} folders, or set `each` to treat each alone"
            )
    return {root: files}


def _schedule_folder(root: Path, place: Path) -> Path:
    below = [place, *place.parents][: len(place.relative_to(root).parts) + 1]
    return next((folder for folder in below if (folder / MANIFEST).exists()), below[-2] if len(below) > 1 else root)
