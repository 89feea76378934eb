"""Images in folders: find them, read them, and group them by schedule."""

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

from ecad.errors import EcadError, first_line
from ecad.images.folder import MANIFEST
from ecad.utils.published import how_to_fetch

# Each uint8 (height, width, 3); a list, or an array (n, height, width, 3).
Images = Sequence[np.ndarray] | np.ndarray

# TIFF's and EXIF's numbers for these fields.
_PHOTOMETRIC, _ORIENTATION = 262, 274
# Formats that Pillow names but does not decode, or only with another program.
_NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
# Formats that begin with a signature, which identifies a file whatever its name.
_SIGNED = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "TIFF", "WEBP")
# Formats whose further images are not thumbnails or other sizes of the first.
_ANIMATED = {"AVIF", "GIF", "PNG", "TIFF", "WEBP"}
# Suffixes of files that ecad writes beside images.
_OWN = {".html", ".json", ".jsonl"}
_WHITE = (255, 255, 255, 255)


@dataclass(frozen=True)
class Found:
    """The images in a folder and its subfolders, and what was skipped.

    Args:
        root: The folder.
        files: The images, sorted by name.
        skipped: Kind of file that is no image, or of folder that was not entered -> number of them.
    """

    root: Path
    files: list[Path]
    skipped: Mapping[str, int]

    @property
    def kinds(self) -> dict[str, int]:
        """Suffix in lower case -> number of images, the most frequent first."""
        return dict(Counter(file.suffix.lower() or "no suffix" for file in self.files).most_common())

    def told(self) -> str | None:
        """One line about images of several kinds and about skipped files; None if there is nothing to say."""
        if len(self.kinds) < 2 and not self.skipped:
            return None
        line = f"{self.root}: {len(self.files)} images ({_counted(self.kinds)})"
        return f"{line}; skipped: {_counted(self.skipped)}" if self.skipped else line


def find_images(folder: str | os.PathLike[str]) -> Found:
    """Find the images in a folder and its subfolders: every file that Pillow can open. Links are followed.

    Args:
        folder: The folder.

    Raises:
        EcadError: There is no such folder, or no image in it.
    """
    root = Path(folder)
    if not root.is_dir():
        found = "this is a file" if root.exists() else "there is nothing"
        raise EcadError(f"{root}: expected a folder of images, {found}{how_to_fetch(root)}")
    skipped: Counter[str] = Counter()
    files = list(_walk(root, frozenset([os.path.realpath(root)]), skipped))
    if not files:
        rest = f"; skipped: {_counted(skipped)}" if skipped else ""
        raise EcadError(f"{root}: there are no images in this folder{rest}")
    return Found(root, files, dict(skipped))


def image_files(folder: str | os.PathLike[str]) -> list[Path]:
    """The files of `find_images`; raises the same errors."""
    return find_images(folder).files


def _walk(folder: Path, above: frozenset[str], skipped: Counter[str]) -> Iterator[Path]:
    """The images of a folder, then those of its subfolders; `above` holds the real paths of the parent folders."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        skipped["folders that cannot be read"] += 1
        return
    folders = []
    for entry in entries:
        kind = _kind(entry)
        if kind == "folder":
            folders.append(Path(entry.path))
        elif kind == "picture":
            yield Path(entry.path)
        elif kind:
            skipped[kind] += 1
    for place in folders:
        real = os.path.realpath(place)
        if real in above:
            skipped["links back to a folder above"] += 1
        else:
            yield from _walk(place, above | {real}, skipped)


def _kind(entry: os.DirEntry[str]) -> str:
    """The kind of a folder's entry: "picture", "folder", or the name to report; empty for ecad's own files."""
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
    except Exception:  # see `_read`
        return False


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def read_image(file: str | os.PathLike[str]) -> np.ndarray:
    """Read an image as a viewer shows it: EXIF orientation applied, transparency over white, 16-bit values scaled to 8.

    Args:
        file: Any image that Pillow can open; the first frame of several.

    Returns:
        uint8 (height, width, 3).

    Raises:
        EcadError: The file is damaged, no image, too large, or has pixel values without a defined white.
    """
    return _read(file)[0]


def _read(file: str | os.PathLike[str]) -> tuple[np.ndarray, int]:
    """`read_image`, and the number of frames or pages in the file."""
    try:
        # From a stream: Pillow maps files of a name into memory, and misreads turned grey TIFF files there.
        with open(file, "rb") as stream, Image.open(stream) as image:
            frames = getattr(image, "n_frames", 1) if image.format in _ANIMATED else 1
            return np.asarray(_as_it_looks(image)), frames
    except UnidentifiedImageError as error:
        raise EcadError(f"{os.fspath(file)}: cannot read this image: it is damaged, or no image") from error
    except Exception as error:  # each of Pillow's formats raises whatever its parser raises
        reason = getattr(error, "strerror", None) or first_line(error)
        raise EcadError(f"{os.fspath(file)}: cannot read this image: {reason}") from error


def _as_it_looks(source: Image.Image) -> Image.Image:
    image = _in_8_bits(ImageOps.exif_transpose(source), source)
    if _is_transparent(image):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, _WHITE), image)
    return image.convert("RGB")


def _in_8_bits(image: Image.Image, source: Image.Image) -> Image.Image:
    """Scale 16-bit grey, which Pillow would clip at 255; `source` is the image as it was opened."""
    if not image.mode.startswith(("I", "F")):
        return image
    if image.mode == "F" or (image.mode == "I" and source.format not in ("PNG", "PPM")):
        raise ValueError(f"pixels of mode {image.mode} do not say which value is white; convert it to 8 or 16 bits")
    values = np.asarray(image).astype(np.int64)
    if source.format == "TIFF" and source.tag_v2.get(_PHOTOMETRIC) == 0:  # type: ignore[attr-defined]
        values = 65535 - values
    return Image.fromarray(np.round(values / 257).astype(np.uint8))


def _is_transparent(image: Image.Image) -> bool:
    return image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info


def content_digest(file: str | os.PathLike[str]) -> bytes:
    """SHA-256 of an image file, the key of results that are stored for an image.

    Earlier releases ignored orientation, transparency and 16-bit values. Images with these get another digest, so that
    results of those releases are not reused.

    Raises:
        EcadError: The file cannot be read.
    """
    try:
        content = Path(file).read_bytes()
    except OSError as error:
        raise EcadError(f"{os.fspath(file)}: cannot read this image: {error.strerror}") from error
    digest = hashlib.sha256(content)
    with suppress(Exception), Image.open(io.BytesIO(content)) as image:  # see `_read`
        turned = image.getexif().get(_ORIENTATION, 1) != 1
        if turned or image.mode.startswith(("I", "F")) or _is_transparent(image):
            digest.update(b"as it looks")
    return digest.digest()


def read_images(files: Sequence[Path]) -> list[np.ndarray]:
    """Read images in threads, since decoding releases the GIL. Warns of images of one colour and of further frames."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        images, frames = zip(*pool.map(_read, files), strict=True) if files else ((), ())
    if several := [(file, count) for file, count in zip(files, frames, strict=True) if count > 1]:
        file, count = several[0]
        warnings.warn(
            f"{file}: has {count} frames, like {len(several)} of {len(files)} images read together: only the first is "
            "read; save each frame as an image of its own",
            RuntimeWarning,
            stacklevel=2,
        )
    if blank := [file for file, image in zip(files, images, strict=True) if (image == image[0, 0]).all()]:
        warnings.warn(
            f"{blank[0]}: one colour throughout, like {len(blank)} of {len(files)} images read together; check these "
            "images: they are scored like all others",
            RuntimeWarning,
            stacklevel=2,
        )
    return list(images)


def by_schedule(folder: str | os.PathLike[str] | Found, each: bool = False) -> dict[Path, list[Path]]:
    """Group images by schedule: folder of a schedule -> its images.

    A folder with a manifest belongs to one schedule. Without manifests, each direct subfolder may belong to one; two
    subfolders do if they have images with the same names.

    Args:
        folder: folder of the images, or the result of `find_images`.
        each: whether several schedules are allowed.

    Raises:
        EcadError: there are no images, or images of several schedules without `each`.
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
                f"{other.relative_to(root)}; give one of its {len(found)} folders, or set `each` for one result each"
            )
    return {root: files}


def _schedule_folder(root: Path, place: Path) -> Path:
    below = [place, *place.parents][: len(place.relative_to(root).parts) + 1]
    return next((folder for folder in below if (folder / MANIFEST).exists()), below[-2] if len(below) > 1 else root)
