"""The index of a store of embeddings, written and read piece by piece, so that its size does not matter for memory."""

from __future__ import annotations

import json
import re
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any, TextIO, TypedDict

from ecad.errors import EcadError
from ecad.prompts.files import Prompt
from ecad.utils.files import stays_inside
from ecad.utils.versions import without_parts

INDEX = "index.json"
_FORMAT = "ecad embeddings 1"
# Bytes of a stem. The names of images add a seed and a suffix.
_LONGEST = 220
# Characters read at once.
_PIECE = 1 << 16
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


class Row(TypedDict):
    """A prompt in the index."""

    stem: str
    id: str
    text: str
    category: str | None
    seed: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A prompt of a store.

    Args:
        stem: prefix of the names of its images.
        prompt: id, text and category.
        seed: the prompt's part of the noise seed.
    """

    stem: str
    prompt: Prompt
    seed: int = 0


class Index:
    """An index on disk. The names and file offsets of the shards are in memory; prompts are read when needed.

    Args:
        file: `index.json` of a store.

    Raises:
        EcadError: the file cannot be read, or is no index.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.settings: Mapping[str, Any] = {}
        self.names: list[str] = []
        # File offsets of the rows of each shard; number of prompts before each shard, and the total at the end.
        self._begins, self._ends, self._counts = array("Q"), array("Q"), array("Q")
        self._last: tuple[int, list[Entry]] = -1, []
        try:
            with open(file, encoding="utf-8", newline="") as stream:
                self._read(_Json(stream))
            return
        except OSError as error:
            found = error.strerror or str(error)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            found = f"{type(error).__name__}: {error}"
        raise EcadError(f"{file}: expected an index of embeddings ({_FORMAT}), found {found[:80]}; make them again")

    def __len__(self) -> int:
        """The number of prompts."""
        return self._counts[-1]

    def shards(self) -> Iterator[tuple[str, list[Row]]]:
        """The file of each shard, and the rows of its prompts."""
        return ((name, self._rows(shard)) for shard, name in enumerate(self.names))

    def entry(self, place: int) -> tuple[str, Entry]:
        """The file of the shard that a prompt is in, and the prompt."""
        shard = bisect_right(self._counts, place) - 1
        if self._last[0] != shard:
            self._last = shard, [_entry(row) for row in self._rows(shard)]
        return self.names[shard], self._last[1][place - self._counts[shard]]

    def holds(self, other: Index) -> bool:
        """Whether the other index has the same prompts in the same shards, and the same settings.

        Settings that only the other index names are not compared: earlier releases named neither the tokenizer nor the
        whole text encoder.
        """
        return (
            self.settings in (other.settings, without_parts(other.settings))
            and len(self) == len(other)
            and all(mine == theirs for mine, theirs in zip(self.shards(), other.shards(), strict=True))
        )

    def _read(self, text: _Json) -> None:
        head: dict[str, Any] = {}
        for name in text.names():
            if name in head:
                raise ValueError(f"{name!r} twice")
            head[name] = self._read_shards(text) if name == "shards" else text.value()
        text.end()
        if head["format"] != _FORMAT or not isinstance(head["settings"], dict):
            raise ValueError(f"format {head['format']!r}, or settings that are no object")
        if not head["shards"] or len(set(self.names)) < len(self.names):
            raise ValueError("no prompts, or a repeated shard")
        self.settings = head["settings"]

    def _read_shards(self, text: _Json) -> int:
        prompts = 0
        for name in text.names():
            self._counts.append(prompts)
            self._begins.append(text.place())
            rows = text.value()
            self._ends.append(text.place())
            if not (stays_inside(name) and isinstance(rows, list) and all(map(_is_row, rows))):
                raise ValueError(f"malformed rows in {name!r}")
            self.names.append(name)
            prompts += len(rows)
        self._counts.append(prompts)
        return prompts

    def _rows(self, shard: int) -> list[Row]:
        begin, end = self._begins[shard], self._ends[shard]
        try:
            with open(self.file, "rb") as stream:
                stream.seek(begin)
                return list(json.loads(stream.read(end - begin)))
        except (OSError, ValueError) as error:
            raise EcadError(f"{self.file}: the file has changed since it was opened") from error


def index_text(entries: Iterable[Entry], settings: Mapping[str, object], batch_size: int) -> Iterator[str]:
    """The content of an index, piece by piece."""
    head = json.dumps({"format": _FORMAT, "settings": dict(settings)}, indent=1, ensure_ascii=False)
    yield head.removesuffix("\n}") + ',\n "shards": {'
    left = iter(entries)
    for number in count():
        rows = [
            {"stem": e.stem, "id": e.prompt.id, "text": e.prompt.text, "category": e.prompt.category, "seed": e.seed}
            for e in islice(left, batch_size)
        ]
        if not rows:
            break
        shard = json.dumps({f"{number:05d}.safetensors": rows}, indent=1, ensure_ascii=False)
        yield ("," if number else "") + shard[1:-2].replace("\n", "\n ")
    yield "\n }\n}\n"


class _Json:
    """Reads a JSON text with one value in memory at a time; malformed JSON raises ValueError."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._text, self._at = stream, "", 0
        self._place = 0  # like `_at`, but in bytes from the start of the file

    def names(self) -> Iterator[str]:
        """The keys of an object that is not empty; read the value of each key before the next key."""
        self._mark("{")
        while True:
            key = self.value()
            if not isinstance(key, str):
                raise ValueError(f"a key {key!r}")
            self._mark(":")
            yield key
            if self._mark(",}") == "}":
                return

    def value(self) -> Any:
        """The next value."""
        self._skip()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except ValueError:
                if not self._more():
                    raise
                continue
            if end < len(self._text):
                self._place += len(self._text[self._at : end].encode())
                self._at = end
                return value
            if not self._more():  # a number might continue
                raise ValueError("no end")

    def place(self) -> int:
        """Offset of the next value, in bytes."""
        self._skip()
        return self._place

    def end(self) -> None:
        """Check that nothing follows."""
        if self._skip():
            raise ValueError("more than one value")

    def _mark(self, allowed: str) -> str:
        mark = self._skip()
        if not mark or mark not in allowed:
            raise ValueError(f"{mark!r} instead of one of {allowed!r}")
        self._at, self._place = self._at + 1, self._place + 1
        return mark

    def _skip(self) -> str:
        """Skip spaces and return the next character without reading it; empty at the end."""
        while True:
            begin, self._at = self._at, _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
            self._place += self._at - begin
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def _more(self) -> bool:
        # The buffer doubles, so that a long value is not parsed often.
        piece = self._stream.read(max(_PIECE, len(self._text)))
        self._text, self._at = self._text[self._at :] + piece, 0
        return bool(piece)


def _entry(row: Row) -> Entry:
    return Entry(row["stem"], Prompt(row["id"], row["text"], row["category"]), row["seed"])


def _is_row(row: Row) -> bool:
    """Whether a row of an index is an entry whose images stay in their folder."""
    texts = isinstance(row["id"], str) and isinstance(row["text"], str) and isinstance(row["category"], str | None)
    return texts and type(row["seed"]) is int and stays_inside(row["stem"]) and len(row["stem"].encode()) <= _LONGEST
