"""Text embeddings on disk: shards of safetensors and an index, so that no prompt is encoded twice.

A store is a folder: `index.json` says which prompt is in which shard and how the embeddings were made, each shard holds
the embeddings of one batch of prompts, `negative.safetensors` those of the empty prompt where a model reads them. The
index is there before the first shard, and a shard is there whole or not at all: what is missing is left to do.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ecad.errors import EcadError
from ecad.files import held, make_folder, parse_json, stays_inside, write_atomic
from ecad.image_generators.text import PromptEmbeds
from ecad.prompts import foreign
from ecad.prompts.files import Prompt

INDEX = "index.json"
NEGATIVE = "negative.safetensors"
_LOCK = ".lock"
_FORMAT = "ecad embeddings 1"
# Of a stem in bytes: an image's seed and suffix follow it.
_LONGEST = 220


@dataclass(frozen=True, slots=True)
class Entry:
    """A prompt to be stored.

    Args:
        stem: what the names of its images begin with.
        prompt: id, text and category.
        seed: its own part of the seed of their noise.
    """

    stem: str
    prompt: Prompt
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Stored:
    """A prompt whose embeddings are on disk.

    Args:
        entry: which prompt.
        file: where its embeddings are, a shard or a foreign `.pt` file.
        settings: how they were made; empty for foreign files.
    """

    entry: Entry
    file: Path
    settings: Mapping[str, Any]


def write_store(
    folder: str | os.PathLike[str],
    entries: Sequence[Entry],
    encode: Callable[[Sequence[str]], PromptEmbeds],
    settings: Mapping[str, Any],
    batch_size: int,
    replace: bool = False,
) -> Iterator[None]:
    """Encode prompts batch by batch into a store; goes on where an interrupted run ended.

    Args:
        folder: of the store.
        entries: all its prompts, in order.
        encode: texts -> their embeddings.
        settings: what the embeddings depend on, as JSON values.
        batch_size: prompts encoded at once, and kept in one shard.
        replace: a store of other prompts or settings makes room instead of being refused.

    Yields:
        nothing, whenever another batch is there.

    Raises:
        EcadError: the folder holds another store, or cannot be written.
    """
    with store_to_write(folder, entries, settings, batch_size, replace) as shards:
        for name, rows in shards.items():
            write_shard(Path(folder), name, rows, encode)
            yield


@contextmanager
def store_to_write(
    folder: str | os.PathLike[str],
    entries: Sequence[Entry],
    settings: Mapping[str, Any],
    batch_size: int,
    replace: bool = False,
) -> Iterator[dict[str, list[dict[str, Any]]]]:
    """What `write_store` does around its shards: gives the file of each, and the rows of its prompts."""
    target = Path(folder)
    index = _index(entries, settings, batch_size)
    make_folder(target)
    busy = f"{target}: another process writes these embeddings: expected to be the only one"
    with held(target / _LOCK, f"{busy}; wait until it ends, stop it, or use another folder"):
        try:
            for left in target.glob(".*.tmp"):  # by a killed run
                left.unlink(missing_ok=True)
            _begin(target, index, replace)
            yield dict(index["shards"])
        finally:
            (target / _LOCK).unlink(missing_ok=True)


def write_shard(
    folder: Path, name: str, rows: Sequence[Mapping[str, Any]], encode: Callable[[Sequence[str]], PromptEmbeds]
) -> None:
    """Encode the prompts of one shard, unless it is there."""
    if not (folder / name).exists():
        embeds = encode([row["text"] for row in rows])
        if embeds.negative is not None and not (folder / NEGATIVE).exists():
            write_atomic(folder / NEGATIVE, save({"negative": _plain(embeds.negative)}))
        write_atomic(folder / name, save(_tensors([row["stem"] for row in rows], embeds)))


def find_stored(folder: str | os.PathLike[str]) -> dict[str, list[Stored]]:
    """All embeddings in a folder and in the folders in it.

    Args:
        folder: a store, a folder of `.pt` files, or a folder of such folders.

    Returns:
        folder relative to the given one, `.` for itself -> its prompts in order; folders by name.

    Raises:
        EcadError: there are none, or a store is damaged or not finished.
    """
    root = Path(folder)
    if not root.is_dir():
        raise EcadError(f"{root}: expected a folder of embeddings, found {'a file' if root.exists() else 'nothing'}")
    found: dict[str, list[Stored]] = {}
    for place in [root, *sorted(path for path in root.rglob("*") if path.is_dir())]:
        if (place / INDEX).is_file():
            found[place.relative_to(root).as_posix()] = _read_index(place)
        elif files := sorted(place.glob("*.pt")):
            found[place.relative_to(root).as_posix()] = [
                Stored(Entry(*foreign.describe(file)), file, {}) for file in files
            ]
    if not found:
        raise EcadError(
            f"{root}: expected embeddings ({INDEX} with its shards, or *.pt files), found none; "
            "make them with `ecad embed`"
        )
    return found


def load_stored(stored: Sequence[Stored]) -> PromptEmbeds:
    """The embeddings of some prompts of one folder, on the CPU; nothing else of the folder is read.

    Raises:
        EcadError: a file is missing or damaged.
    """
    if stored[0].file.suffix == ".pt":
        return foreign.load([item.file for item in stored])
    prompt_embeds = [_read(item.file, item.entry.stem) for item in stored]
    pooled = [_read(item.file, f"{item.entry.stem}.pooled") for item in stored]
    negative = stored[0].file.with_name(NEGATIVE)
    return PromptEmbeds(
        tuple(row for row in prompt_embeds if row is not None),
        tuple(row for row in pooled if row is not None) or None,
        _read(negative, "negative") if negative.exists() else None,
    )


def _index(entries: Sequence[Entry], settings: Mapping[str, Any], batch_size: int) -> dict[str, Any]:
    rows = [
        {"stem": e.stem, "id": e.prompt.id, "text": e.prompt.text, "category": e.prompt.category, "seed": e.seed}
        for e in entries
    ]
    shards = {
        f"{number:05d}.safetensors": rows[start : start + batch_size]
        for number, start in enumerate(range(0, len(rows), batch_size))
    }
    return {"format": _FORMAT, "settings": dict(settings), "shards": shards}


def _begin(folder: Path, index: dict[str, Any], replace: bool) -> None:
    file = folder / INDEX
    if file.exists():
        if _parse(file) == index:
            return
        if not replace:
            raise EcadError(
                f"{folder}: holds embeddings of other prompts, or made with other settings (see {INDEX}); "
                "choose another folder, or delete this one"
            )
        # The old index goes first: without it no old shard can be taken for a new one.
        for old in (file, *folder.glob("*.safetensors")):
            old.unlink()
    # Piece by piece: of a million prompts, the whole text would take more memory than all else.
    write_atomic(file, chain(json.JSONEncoder(indent=1, ensure_ascii=False).iterencode(index), "\n"))


def _read_index(folder: Path) -> list[Stored]:
    index = _parse(folder / INDEX)
    missing = [name for name in index["shards"] if not (folder / name).exists()]
    if missing:
        raise EcadError(
            f"{folder}: {len(missing)} of {len(index['shards'])} shards of embeddings are still to be made; run the "
            "command that makes them again, it goes on from here"
        )
    return [
        Stored(
            Entry(row["stem"], Prompt(row["id"], row["text"], row["category"]), row["seed"]),
            folder / name,
            index["settings"],
        )
        for name, rows in index["shards"].items()
        for row in rows
    ]


def _parse(file: Path) -> dict[str, Any]:
    try:
        index = parse_json(file.read_bytes())
        if index["format"] == _FORMAT and isinstance(index["settings"], dict):
            rows = [row for rows in index["shards"].values() for row in rows]
            if rows and all(map(stays_inside, index["shards"])) and all(map(_is_entry, rows)):
                return dict(index)
        found = f"format {index['format']!r}, and what does not belong there"
    except OSError as error:
        found = error.strerror or str(error)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        found = f"{type(error).__name__}: {error}"
    raise EcadError(f"{file}: expected an index of embeddings ({_FORMAT}), found {found[:80]}; make them again")


def _is_entry(row: dict[str, Any]) -> bool:
    """Whether a row of an index is an entry whose images stay in their folder."""
    texts = isinstance(row["id"], str) and isinstance(row["text"], str) and isinstance(row["category"], str | None)
    return texts and type(row["seed"]) is int and stays_inside(row["stem"]) and len(row["stem"].encode()) <= _LONGEST


def _tensors(stems: Sequence[str], embeds: PromptEmbeds) -> dict[str, Tensor]:
    tensors = {stem: _plain(row) for stem, row in zip(stems, embeds.prompt_embeds, strict=True)}
    return tensors | {f"{stem}.pooled": _plain(row) for stem, row in zip(stems, embeds.pooled or (), strict=False)}


def _plain(tensor: Tensor) -> Tensor:
    # A row of a batch shares the batch's memory, which safetensors refuses to write.
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def _read(file: Path, key: str) -> Tensor | None:
    """One tensor of a file; None if it is one that not every model has and the file has it not."""
    try:
        with safe_open(file, framework="pt") as tensors:
            return None if key.endswith(".pooled") and key not in tensors.keys() else tensors.get_tensor(key)  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise EcadError(
            f"{file}: cannot read the embeddings of {key!r}: {reason}; delete this file and make it again"
        ) from error
