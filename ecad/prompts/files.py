"""Prompt files: text with one prompt per line, JSON, JSON lines, tables, and MJHQ's metadata."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

from ecad.errors import EcadError
from ecad.utils.published import how_to_fetch

FileMode = Literal["text", "txt", "json", "jsonl", "ndjson", "csv", "tsv", "parquet", "mjhq"]

# COCO's annotators had to write at least eight words per caption.
_SHORTEST_CAPTION = 4
_SURROGATE = re.compile("[\ud800-\udfff]")
# Names of the columns or fields of a prompt, its id and its category; the case of letters does not matter.
_PROMPT = ("prompt", "prompts", "caption", "captions", "text")
_ID = ("id", "prompt_id")
_CATEGORY = ("category",)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt, its id in file names and scores, and its category if it has one."""

    id: str
    text: str
    category: str | None = None


def read_prompts(path: str | os.PathLike[str], mode: FileMode | None = None) -> list[Prompt]:
    """Read a prompt file.

    Args:
        path: The file.
        mode: How to read it: `text` or `txt`, one prompt per line; `json`, a list of texts or of objects, or MJHQ's
            `{id: {"category": ..., "prompt": ...}}` (`mjhq`); `jsonl` or `ndjson`, a text or an object per line; `csv`
            and `parquet`, tables; `tsv`, a table in which quotes are text. Objects and tables name the prompt `prompt`,
            `prompts`, `caption`, `captions` or `text`, and may name an `id` and a `category`. The default is the format
            of the file's suffix, and text for a file without one.

    Returns:
        The prompts in the order of the file. A prompt without an id gets its index as its id, from `0000`.

    Raises:
        EcadError: The file is missing, has an unknown suffix or is malformed; there is no prompt, or a prompt is empty;
            an id is neither text nor an integer, or is not unique.
    """
    return list(_prompts(Path(path), mode))


class PromptFile:
    """A prompt file that each iteration reads again: formats with one prompt per line need no memory for the prompts.

    Args:
        path: The file.
        mode: How to read it, as for `read_prompts`.

    Raises:
        EcadError: When the file is opened, for the same reasons as `read_prompts`.
    """

    def __init__(self, path: str | os.PathLike[str], mode: FileMode | None = None) -> None:
        self._file, self._mode = Path(path), mode
        # These formats are read as a whole, and a pipe can be read only once.
        again = self._file.is_file() and _format(self._file, mode) not in ("json", "mjhq", "parquet")
        self._kept = None if again else read_prompts(path, mode)
        self._count = sum(1 for _ in self)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Prompt]:
        return iter(self._kept) if self._kept is not None else _prompts(self._file, self._mode)


def broken_captions(path: str | os.PathLike[str]) -> list[int]:
    """Find lines of a caption file that seem to end inside a caption: with a space, or after fewer than four words.

    Returns:
        The numbers of the lines, from 1.

    Raises:
        EcadError: The file cannot be read.
    """
    broken: list[int] = []
    for number, line in enumerate(map(_without_end, _lines(Path(path))), 1):
        is_rest = broken[-1:] == [number - 1]
        if line.strip() and (line != line.rstrip() or (len(line.split()) < _SHORTEST_CAPTION and not is_rest)):
            broken.append(number)
    return broken


def _prompts(file: Path, mode: FileMode | None) -> Iterator[Prompt]:
    prompts = _numbered(file, _READERS[_format(file, mode)](file))
    first = next(prompts, None)
    if first is None:
        raise EcadError(f"{file}: there is no prompt in this file; write one prompt per line")
    yield first
    yield from prompts


def _format(file: Path, mode: FileMode | None) -> FileMode:
    known = get_args(FileMode)
    if mode is not None and mode not in known:
        raise EcadError(f"prompt file format {mode!r} is unknown: expected one of {', '.join(known)}")
    found: Any = mode or file.suffix.lower().removeprefix(".") or "text"
    if found not in known:
        raise EcadError(
            f"{file}: {file.suffix!r} is no known suffix of a prompt file; rename the file, or give its format "
            f"(--format): {', '.join(known)}"
        )
    return cast(FileMode, found)


def _numbered(file: Path, prompts: Iterator[Prompt]) -> Iterator[Prompt]:
    """Give each prompt without an id its index as its id, and check that ids are unique and text is valid Unicode."""
    seen: set[str] = set()
    without_id = 0  # prompts before the first id: a file without ids needs no memory for them
    for place, prompt in enumerate(prompts):
        # JSON can escape lone surrogates, which cannot be encoded.
        if any(_SURROGATE.search(part) for part in (prompt.id, prompt.text, prompt.category or "")):
            raise EcadError(f"{file}: prompt {prompt.id!r} is no valid text: it holds half of a surrogate pair")
        name = prompt.id or _place_id(place)
        if not seen and not prompt.id:
            without_id += 1
        elif name in seen or (name.isdecimal() and int(name) < without_id and name == _place_id(int(name))):
            raise EcadError(f"{file}: two prompts have the id {name!r}; give each prompt its own id")
        else:
            seen.add(name)
        yield prompt if prompt.id else replace(prompt, id=name)


def _place_id(place: int) -> str:
    return f"{place:04d}"


def _lines(file: Path) -> Iterator[str]:
    """The lines of a file with their line ends. Unlike in text mode, a lone \\r does not end a line."""
    encoding = "utf-8-sig"
    try:
        with open(file, "rb") as stream:
            for line in stream:
                yield line.decode(encoding)
                encoding = "utf-8"
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        missing = how_to_fetch(file) if isinstance(error, FileNotFoundError) else ""
        raise EcadError(f"{file}: cannot read these prompts: {reason}{missing}") from error


def _without_end(line: str) -> str:
    return line.removesuffix("\n").rstrip("\r")


def _from_text(file: Path) -> Iterator[Prompt]:
    return (Prompt("", text) for line in _lines(file) if (text := line.strip()))


def _from_tsv(file: Path) -> Iterator[Prompt]:
    """A table with tabs between columns in which quotes are text, the format of PartiPrompts."""
    lines = _lines(file)
    head = [name.strip() for name in _without_end(next(lines, "")).split("\t")]
    rows = ((number, _without_end(line).split("\t")) for number, line in enumerate(lines, 2) if line.strip())
    return _from_rows(file, head, rows)


def _from_csv(file: Path) -> Iterator[Prompt]:
    reader = csv.reader(_lines(file), strict=True)
    try:
        head = [name.strip() for name in next(reader, [])]
        yield from _from_rows(file, head, ((reader.line_num, cells) for cells in reader if any(cells)))
    except csv.Error as error:
        raise EcadError(f"{file}: line {reader.line_num}: not CSV: {error}") from error


def _from_rows(file: Path, head: Sequence[str], rows: Iterable[tuple[int, Sequence[str]]]) -> Iterator[Prompt]:
    """The prompts of a table, from the names of its columns and the number and cells of each row."""
    text, name, category = (_named(f"{file}: line 1", head, names) for names in (_PROMPT, _ID, _CATEGORY))
    if text is None:
        raise EcadError(f"{file}: line 1: {_no_column(head)}")
    for number, cells in rows:
        # Tables written by hand often omit empty cells at the end. More cells than columns mean a wrong format.
        if len(cells) > len(head) or head.index(text) >= len(cells):
            raise EcadError(f"{file}: line {number}: expected {len(head)} columns, found {len(cells)}")
        row = dict(zip(head, cells, strict=False))
        if not row[text].strip():
            raise EcadError(f"{file}: line {number}: the prompt in column {text!r} is empty")
        own = row.get(name, "").strip() if name else None
        if own == "":
            raise EcadError(f"{file}: line {number}: the id in column {name!r} is empty; fill it or remove the column")
        yield Prompt(own or "", row[text].strip(), (row.get(category, "").strip() or None) if category else None)


def _from_parquet(file: Path) -> Iterator[Prompt]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise EcadError(f"{file}: a Parquet file needs pyarrow: run pip install pyarrow") from error
    try:
        content = parquet.ParquetFile(file)
        head = content.schema_arrow.names
        names = [_named(f"{file}", head, names) for names in (_PROMPT, _ID, _CATEGORY)]
        if names[0] is None:
            raise EcadError(
                f"{file}: no column holds prompts: expected one of {', '.join(_PROMPT)}, found {_shown(head)}"
            )
        columns = [name for name in names if name is not None]
        rows = (row for batch in content.iter_batches(columns=columns) for row in batch.to_pylist())
        for place, row in enumerate(rows):
            yield _from_object(f"{file}: row {place}", row)
    except EcadError:
        raise
    except (ArrowException, OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        missing = how_to_fetch(file) if isinstance(error, FileNotFoundError) else ""
        raise EcadError(f"{file}: cannot read this Parquet file: {reason}{missing}") from error


def _from_json_lines(file: Path) -> Iterator[Prompt]:
    for number, line in enumerate(_lines(file), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line, object_pairs_hook=_unique)
        except (RecursionError, ValueError) as error:
            raise EcadError(f"{file}: line {number}: not JSON: {error}") from error
        yield _from_object(f"{file}: line {number}", entry)


def _from_json(file: Path) -> Iterator[Prompt]:
    try:
        entries = json.loads("".join(_lines(file)), object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        lines = "; read it as jsonl if each line is a prompt" if error.msg == "Extra data" else ""
        raise EcadError(f"{file}: not JSON: line {error.lineno}, column {error.colno}: {error.msg}{lines}") from error
    except (RecursionError, ValueError) as error:
        raise EcadError(f"{file}: cannot read this JSON: {error}") from error
    if isinstance(entries, dict):
        return (_categorised(file, name, entry) for name, entry in entries.items())
    if isinstance(entries, list):
        return (_from_object(f"{file}: entry {place}", entry) for place, entry in enumerate(entries))
    raise EcadError(f"{file}: expected a list of prompts, found {type(entries).__name__}")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(name for name in names if names.count(name) > 1)!r} is repeated")
    return found


def _from_object(where: str, entry: object) -> Prompt:
    """The prompt of a JSON value or row: a text, or an object with fields."""
    fields = entry if isinstance(entry, dict) else {"prompt": entry}
    text, name, category = (_named(where, list(fields), names) for names in (_PROMPT, _ID, _CATEGORY))
    found = None if text is None else fields[text]
    if not isinstance(found, str) or not found.strip():
        raise EcadError(f'{where}: expected a text or {{"id": ..., "prompt": ...}}, found {str(entry)[:60]!r}')
    own = None if name is None else fields[name]
    if name is not None and (isinstance(own, bool) or not isinstance(own, str | int) or not str(own)):
        raise EcadError(f"{where}: the id {own!r} is neither text nor an integer; leave it out to use the index")
    kind = None if category is None else fields[category]
    if isinstance(kind, bool) or not isinstance(kind, str | int | None):
        raise EcadError(f"{where}: the category {str(kind)[:60]!r} is neither text nor an integer; leave it out")
    return Prompt("" if own is None else str(own), found.strip(), None if kind is None else str(kind).strip() or None)


def _categorised(file: Path, name: str, entry: object) -> Prompt:
    fields = entry if isinstance(entry, dict) else {}
    text, category = fields.get("prompt"), fields.get("category")
    if not (name and isinstance(text, str) and text.strip() and isinstance(category, str) and category.strip()):
        raise EcadError(
            f'{file}: entry {name!r}: expected a list of prompts, or {{id: {{"category": ..., "prompt": ...}}}} as in '
            f"MJHQ, found {str(entry)[:60]!r}"
        )
    return Prompt(name, text.strip(), category.strip())


def _named(where: str, head: Sequence[str], names: Sequence[str]) -> str | None:
    """The column or field with one of some names; raises EcadError if there are several."""
    found = [name for name in head if isinstance(name, str) and name.strip().lower() in names]
    if len(found) > 1:
        raise EcadError(f"{where}: {_shown(found)} could all be meant; rename or remove all but one")
    return found[0] if found else None


def _no_column(head: Sequence[str]) -> str:
    return f"no column holds prompts: expected one of {', '.join(_PROMPT)}, found {_shown(head)}"


def _shown(names: Sequence[str]) -> str:
    return repr(", ".join(map(str, names))[:60])


_READERS: dict[FileMode, Callable[[Path], Iterator[Prompt]]] = {
    "text": _from_text,
    "txt": _from_text,
    "json": _from_json,
    "mjhq": _from_json,
    "jsonl": _from_json_lines,
    "ndjson": _from_json_lines,
    "csv": _from_csv,
    "tsv": _from_tsv,
    "parquet": _from_parquet,
}
