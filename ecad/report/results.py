"""What there is to show of a search, as plain data, and the folder that keeps it so that nothing is computed again."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image
from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    JsonValue,
    PlainSerializer,
    PlainValidator,
    TypeAdapter,
    ValidationError,
)
from pydantic.dataclasses import dataclass

from ecad.errors import EcadError
from ecad.schedules import CacheSchedule
from ecad.schedules.provenance import Interval
from ecad.utils.files import as_file_name, stays_inside, write_atomic

RESULTS_FILE = "results.json"

Kind = Literal["uncached", "baseline", "found"]


def _schedule(value: Any) -> CacheSchedule:
    return value if isinstance(value, CacheSchedule) else CacheSchedule.from_json(value)


def _image_path(value: Any) -> str:
    """Results may come from strangers: a page must not embed files from elsewhere on the reader's disk."""
    if not stays_inside(value):
        raise ValueError("expected a path inside the folder, with forward slashes")
    return str(value)


def _line(value: str) -> str:
    """Names go to terminals, where control characters would do things."""
    if not value or not value.isprintable():
        raise ValueError("expected one line of printable text")
    return value


_Line = Annotated[str, AfterValidator(_line)]
_Schedule = Annotated[CacheSchedule, PlainValidator(_schedule), PlainSerializer(CacheSchedule.to_json)]
_ImagePath = Annotated[str, PlainValidator(_image_path)]
_Count = Annotated[int, Field(ge=0)]
_CONFIG = ConfigDict(extra="forbid", arbitrary_types_allowed=True, ser_json_bytes="base64", val_json_bytes="base64")


@dataclass(frozen=True, config=_CONFIG)
class Picture:
    """What an image was made from: one row of the picture grid."""

    prompt: str
    seed: int


@dataclass(frozen=True, config=_CONFIG)
class Entry:
    """One schedule that is shown: the uncached one, a hand-made one (baseline), or one that the search found.

    Args:
        name: unique among the entries.
        kind: "uncached", "baseline" or "found".
        schedule: what it recomputes.
        macs: MACs of one image.
        time_ratio: measured: the uncached time of an image divided by this schedule's, so 2.0 is twice as fast.
        scores: scorer -> mean over the held-out prompts and seeds, higher is better.
        kept_bytes: most bytes of reused features at any moment of one image.
        expected_ns: time of one image, as the price list has it that the search went by.
        search_quality: its mean quality on the search's own prompts, as a candidate has it.
        images: one PNG a picture of the results, relative to their folder; or none at all.
    """

    name: _Line
    kind: Kind
    schedule: _Schedule
    macs: Annotated[int, Field(gt=0)]
    time_ratio: Annotated[FiniteFloat, Field(gt=0)] | None = None
    scores: Mapping[_Line, Interval] = Field(default_factory=dict)
    search_quality: FiniteFloat | None = None
    images: tuple[_ImagePath, ...] = ()
    kept_bytes: _Count | None = None
    expected_ns: _Count | None = None


@dataclass(frozen=True, config=_CONFIG)
class Candidate:
    """One schedule that the search evaluated.

    Args:
        generation: that made it.
        macs: MACs of one image.
        quality: its images' mean score on the search's own prompts.
        number: its place in the generation.
        bits: what it recomputes, in the order of the uncached entry's steps and sites, eight to a byte; or nothing.
        kept_bytes, expected_ns: as an entry has them.
        forecast: whether its schedule does.
    """

    generation: _Count
    macs: _Count
    quality: FiniteFloat
    number: _Count = 0
    bits: bytes = b""
    kept_bytes: _Count | None = None
    expected_ns: _Count | None = None
    forecast: bool = False


@dataclass(frozen=True, config=_CONFIG)
class Guess:
    """What the surrogate would have said of a candidate before it was evaluated, and what was found."""

    generation: _Count
    expected: FiniteFloat
    found: FiniteFloat


@dataclass(frozen=True, config=_CONFIG)
class Generation:
    """Where the search stood after a generation; images and seconds are counted from its start."""

    number: _Count
    images: _Count
    seconds: Annotated[FiniteFloat, Field(ge=0)]
    hypervolume: FiniteFloat
    front_size: _Count


@dataclass(frozen=True, config=_CONFIG)
class Results:
    """Everything a report shows.

    Args:
        title: one line.
        generator: the image generator's name.
        pictures: prompts and seeds of the images shown, the same for all entries.
        entries: the schedules shown.
        quality_name: the scorer that the search maximised.
        candidates: everything the search evaluated.
        history: one a generation, in order.
        guesses: the surrogate's, of a sample of the candidates.
        settings: how it was made, JSON values.
        missing: what is not there and could be, a sentence each.

    Raises:
        ValueError: two entries of one name, two uncached ones, images that do not match the pictures, or candidates'
            bits that are not of the uncached entry's shape.
    """

    title: _Line
    generator: _Line
    pictures: tuple[Picture, ...]
    entries: tuple[Entry, ...]
    quality_name: _Line
    candidates: tuple[Candidate, ...] = ()
    history: tuple[Generation, ...] = ()
    guesses: tuple[Guess, ...] = ()
    settings: Mapping[str, JsonValue] = Field(default_factory=dict)
    missing: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [entry.name for entry in self.entries]
        if len(set(names)) < len(names):
            raise ValueError(f"entries: expected a name for each, found {', '.join(names)}")
        if sum(entry.kind == "uncached" for entry in self.entries) > 1:
            raise ValueError("entries: expected at most one uncached entry")
        for entry in self.entries:
            if len(entry.images) not in (0, len(self.pictures)):
                expected = f"{len(self.pictures)} images or none"
                raise ValueError(f"entry {entry.name}: expected {expected}, found {len(entry.images)}")
        if self.uncached is not None:
            size = -(-self.uncached.schedule.recompute.size // 8)
            if odd := next((one for one in self.candidates if len(one.bits) not in (0, size)), None):
                raise ValueError(f"candidates: expected {size} bytes of bits or none, found {len(odd.bits)}")

    @property
    def uncached(self) -> Entry | None:
        """The entry that recomputes everything, if there is one."""
        return next((entry for entry in self.entries if entry.kind == "uncached"), None)

    @property
    def scorers(self) -> list[str]:
        """Names of all scorers of the entries, in the order in which they first appear."""
        return list(dict.fromkeys(name for entry in self.entries for name in entry.scores))

    def ordered(self) -> list[Entry]:
        """The entries as they are shown: uncached, baselines, found, and in each kind the dearest first."""
        rank = ("uncached", "baseline", "found").index
        return sorted(self.entries, key=lambda entry: (rank(entry.kind), -entry.macs))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `results.json`, whole or not at all; the images are there already (`save_images`).

        Raises:
            EcadError: it cannot be written.
        """
        write_atomic(Path(folder) / RESULTS_FILE, _ADAPTER.dump_json(self, indent=1) + b"\n")

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Results:
        """Read `results.json`; images are looked at only when they are shown.

        Raises:
            EcadError: it is missing or damaged; says where and what was expected.
        """
        file = Path(folder) / RESULTS_FILE
        try:
            return _ADAPTER.validate_json(file.read_bytes())
        except OSError as error:
            raise EcadError(f"{file}: expected the results of a search: {error.strerror or error}") from error
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"]))
            problem = first["msg"].removeprefix("Value error, ")
            raise EcadError(" ".join(f"{file}: {place}: {problem}".split()).replace(": :", ":")) from error


_ADAPTER = TypeAdapter(Results)


def save_images(folder: str | os.PathLike[str], name: str, images: Sequence[np.ndarray]) -> tuple[str, ...]:
    """Write one entry's images as PNG files.

    Args:
        folder: the results' folder.
        name: the entry's name.
        images: uint8 (n, height, width, 3), one a picture of the results.

    Returns:
        their paths relative to the folder, for `Entry.images`.

    Raises:
        EcadError: a file cannot be written.
    """
    paths = image_paths(name, len(images))
    for path, image in zip(paths, images, strict=True):
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, format="PNG")
        write_atomic(Path(folder) / path, stream.getvalue())
    return paths


def image_paths(name: str, count: int) -> tuple[str, ...]:
    """Where `save_images` puts one entry's images."""
    return tuple(f"images/{as_file_name(name)}/{i:03d}.png" for i in range(count))
