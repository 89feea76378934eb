"""Results: everything that a report shows, as plain data, and the file that stores it."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

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


def _schedule(value: object) -> CacheSchedule:
    return value if isinstance(value, CacheSchedule) else CacheSchedule.from_json(value)


def _image_path(value: object) -> str:
    """Results may come from strangers, and a page must not embed other files of the reader's disk."""
    if not stays_inside(value):
        raise ValueError("expected a path inside the folder, with forward slashes")
    return str(value)


def _line(value: str) -> str:
    """Names are printed in terminals, which control characters could manipulate."""
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
    """A prompt and a seed: one row of the image grid.

    Args:
        prompt, seed: of its images.
        frames: of a video, which is an image of its frames one below the other; 1 for an image.
    """

    prompt: str
    seed: int
    frames: Annotated[int, Field(ge=1)] = 1


@dataclass(frozen=True, config=_CONFIG)
class Entry:
    """One schedule that is shown: the uncached one, a hand-made one (baseline), or one that the search found.

    Args:
        name: unique among the entries.
        kind: "uncached", "baseline" or "found".
        schedule: the schedule.
        macs: MACs per image.
        time_ratio: measured speed-up: the uncached time per image divided by this schedule's.
        scores: scorer -> mean over the held-out prompts and seeds; higher is better.
        search_quality: mean quality on the search prompts.
        images: one PNG file per picture of the results, relative to their folder; or none.
        kept_bytes: peak of cached bytes while an image is made.
        expected_ns: expected time per image in nanoseconds, from the cost table of the search.
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
        generation: number of its generation.
        macs: MACs per image.
        quality: mean quality on the search prompts.
        number: its index in the generation.
        bits: its bits in the order of the uncached entry's steps and sites, eight per byte; or empty.
        kept_bytes, expected_ns: as for an entry.
        forecast: whether the schedule extrapolates.
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
    """The surrogate's prediction of a candidate's quality from earlier generations, and the measured quality."""

    generation: _Count
    expected: FiniteFloat
    found: FiniteFloat


@dataclass(frozen=True, config=_CONFIG)
class Generation:
    """The state of the search after a generation; images and seconds are counted from the start."""

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
        generator: name of the image generator.
        pictures: prompts and seeds of the images that are shown, the same for all entries.
        entries: the schedules that are shown.
        quality_name: the scorer that the search maximized.
        candidates: all schedules that the search evaluated.
        history: one item per generation, in order.
        guesses: predictions of the surrogate for a sample of the candidates.
        settings: settings of the search, JSON values.
        missing: what is missing in the report, and how to add it, a sentence each.

    Raises:
        ValueError: two entries have one name, there are two uncached entries, images do not match the pictures, or the
            bits of a candidate do not have the uncached entry's shape.
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
            raise ValueError(f"entries: names must be unique, found {', '.join(names)}")
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
        """The names of all scorers of the entries, in order of appearance."""
        return list(dict.fromkeys(name for entry in self.entries for name in entry.scores))

    def ordered(self) -> list[Entry]:
        """The entries in the order in which they are shown: uncached, baselines, found; most expensive first."""
        rank = ("uncached", "baseline", "found").index
        return sorted(self.entries, key=lambda entry: (rank(entry.kind), -entry.macs))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `results.json` atomically. `save_images` writes the images.

        Args:
            folder: the output folder.

        Raises:
            EcadError: the file cannot be written.
        """
        write_atomic(Path(folder) / RESULTS_FILE, _ADAPTER.dump_json(self, indent=1) + b"\n")

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Results:
        """Read `results.json`. Images are read only when they are shown.

        Args:
            folder: the folder of the results.

        Raises:
            EcadError: the file is missing or damaged.
        """
        file = Path(folder) / RESULTS_FILE
        try:
            return _ADAPTER.validate_json(file.read_bytes())
        except OSError as error:
            raise EcadError(f"{file}: cannot read the results of a search: {error.strerror or error}") from error
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"]))
            problem = first["msg"].removeprefix("Value error, ")
            raise EcadError(" ".join(f"{file}: {place}: {problem}".split()).replace(": :", ":")) from error


_ADAPTER = TypeAdapter(Results)


def save_images(folder: str | os.PathLike[str], name: str, images: Sequence[np.ndarray]) -> tuple[str, ...]:
    """Write one entry's images as PNG files.

    Args:
        folder: the folder of the results.
        name: name of the entry.
        images: uint8 (n, height, width, 3), one per picture of the results.

    Returns:
        the paths relative to the folder, for `Entry.images`.

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
    """The paths to which `save_images` writes an entry's images."""
    return tuple(f"images/{as_file_name(name)}/{i:03d}.png" for i in range(count))
