"""Prompt files: text with one prompt a line, JSON, Parti's table, COCO's captions, MJHQ's metadata."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ecad.errors import EcadError

FileMode = Literal["text", "txt", "json", "tsv", "mjhq"]

# The shortest caption that COCO's annotators were allowed to write has eight words.
_SHORTEST_CAPTION = 4
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt, the name it goes by in file names and scores, and the category it is in, if any."""

    id: str
    text: str
    category: str | None = None


def read_prompts(path: str | os.PathLike[str], mode: FileMode | None = None) -> list[Prompt]:
    """Read a prompt file.

    Args:
        path: the file.
        mode: `text` or `txt`, one prompt a line; `json`, a list of texts or of `{"id": ..., "prompt": ...}`, or
            `{id: {"category": ..., "prompt": ...}}`, which is `mjhq`, too; `tsv`, a table with a column `Prompt` where
            quotes are text. By default the suffix tells; what has none of these is text.

    Returns:
        the prompts in the file's order; one without an id goes by its place, `0000` onwards.

    Raises:
        EcadError: the file is missing, malformed, holds no prompt, an empty one, or one id twice.
    """
    return list(_prompts(Path(path), mode))


class PromptFile:
    """A prompt file that is read anew whenever it is gone through: one prompt a line costs no memory, however many.

    Args:
        path, mode: as for `read_prompts`.

    Raises:
        EcadError: as `read_prompts`, before anything is done with it.
    """

    def __init__(self, path: str | os.PathLike[str], mode: FileMode | None = None) -> None:
        self._file, self._mode = Path(path), mode
        # JSON is read as a whole anyway, and a pipe only once.
        again = self._file.is_file() and _format(self._file, mode) not in ("json", "mjhq")
        self._kept = None if again else read_prompts(path, mode)
        self._count = sum(1 for _ in self)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Prompt]:
        return iter(self._kept) if self._kept is not None else _prompts(self._file, self._mode)


def broken_captions(path: str | os.PathLike[str]) -> list[int]:
    """Lines of a caption file, from 1, that seem to end inside a caption: with a space, or after a word or two.

    Raises:
        EcadError: the file cannot be read.
    """
    broken: list[int] = []
    for number, line in enumerate(map(_without_end, _lines(Path(path))), 1):
        is_rest = broken[-1:] == [number - 1]
        if line.strip() and (line != line.rstrip() or (len(line.split()) < _SHORTEST_CAPTION and not is_rest)):
            broken.append(number)
    return broken


def _prompts(file: Path, mode: FileMode | None) -> Iterator[Prompt]:
    if mode is not None and mode not in _READERS:
        raise EcadError(f"file mode {mode!r} is unknown: expected one of {', '.join(get_args(FileMode))}")
    prompts = _READERS.get(_format(file, mode), _from_lines)(file, _lines(file))
    first = next(prompts, None)
    if first is None:
        raise EcadError(f"{file}: expected at least one prompt, found none; write one prompt a line")
    yield first
    yield from prompts


def _format(file: Path, mode: FileMode | None) -> str:
    return mode or file.suffix.lower().removeprefix(".")


def _lines(file: Path) -> Iterator[str]:
    """The lines of a file with their ends. A lone \\r, which reading as text would take for an end, is none."""
    encoding = "utf-8-sig"
    try:
        with open(file, "rb") as stream:
            for line in stream:
                yield line.decode(encoding)
                encoding = "utf-8"
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise EcadError(f"{file}: cannot read these prompts: {reason}") from error


def _without_end(line: str) -> str:
    return line.removesuffix("\n").rstrip("\r")


def _from_lines(_: Path, lines: Iterator[str]) -> Iterator[Prompt]:
    texts = (text for line in lines if (text := line.strip()))
    return (Prompt(f"{place:04d}", text) for place, text in enumerate(texts))


def _from_table(file: Path, lines: Iterator[str]) -> Iterator[Prompt]:
    head = _without_end(next(lines, ""))
    columns = {name.strip(): i for i, name in enumerate(head.split("\t"))}
    if "Prompt" not in columns:
        raise EcadError(f"{file}: line 1: expected a column 'Prompt', with tabs between columns, found {head[:60]!r}")
    place = 0
    for number, line in enumerate(lines, 2):
        if line.strip():
            cells = dict(zip(columns, line.split("\t"), strict=False))
            if not (text := cells.get("Prompt", "").strip()):
                raise EcadError(f"{file}: line {number}: expected a prompt in column 'Prompt', found none")
            yield Prompt(f"{place:04d}", text, cells.get("Category", "").strip() or None)
            place += 1


def _from_json(file: Path, lines: Iterator[str]) -> Iterator[Prompt]:
    try:
        entries = json.loads("".join(lines), object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise EcadError(f"{file}: not JSON: line {error.lineno}, column {error.colno}: {error.msg}") from error
    except (RecursionError, ValueError) as error:
        raise EcadError(f"{file}: cannot read this JSON: {error}") from error
    if isinstance(entries, dict):
        prompts = (_categorised(file, name, entry) for name, entry in entries.items())
    elif isinstance(entries, list):
        prompts = (_listed(file, place, entry) for place, entry in enumerate(entries))
    else:
        raise EcadError(f"{file}: expected a list of prompts, found {type(entries).__name__}")
    seen: set[str] = set()
    for prompt in prompts:
        # JSON can escape what no file and no tokenizer can hold.
        if any(_SURROGATE.search(part) for part in (prompt.id, prompt.text, prompt.category or "")):
            raise EcadError(f"{file}: prompt {prompt.id!r}: expected text, found half of a surrogate pair")
        if prompt.id in seen:
            raise EcadError(f"{file}: prompt id {prompt.id!r} is there twice; give each prompt an id of its own")
        seen.add(prompt.id)
        yield prompt


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(name for name in names if names.count(name) > 1)!r} is there twice")
    return found


def _listed(file: Path, index: int, entry: Any) -> Prompt:
    text = entry.get("prompt") if isinstance(entry, dict) else entry
    if not isinstance(text, str) or not text.strip():
        raise EcadError(f'{file}: entry {index}: expected a text or {{"id": ..., "prompt": ...}}, found {entry!r}')
    name = str(entry.get("id", f"{index:04d}")) if isinstance(entry, dict) else f"{index:04d}"
    if not name:
        raise EcadError(f"{file}: entry {index}: expected an id, found an empty one")
    return Prompt(name, text.strip())


def _categorised(file: Path, name: str, entry: Any) -> Prompt:
    fields = entry if isinstance(entry, dict) else {}
    text, category = fields.get("prompt"), fields.get("category")
    if not (name and isinstance(text, str) and text.strip() and isinstance(category, str) and category.strip()):
        raise EcadError(
            f'{file}: entry {name!r}: expected a list of prompts, or {{id: {{"category": ..., "prompt": ...}}}} as in '
            f"MJHQ, found {str(entry)[:60]!r}"
        )
    return Prompt(name, text.strip(), category.strip())


_READERS: dict[str, Callable[[Path, Iterator[str]], Iterator[Prompt]]] = {
    "text": _from_lines,
    "txt": _from_lines,
    "json": _from_json,
    "mjhq": _from_json,
    "tsv": _from_table,
}
