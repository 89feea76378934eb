"""Text embeddings on disk: safetensors shards and an index, so that no prompt is encoded twice.

A store is a folder. `index.json` maps prompts to shards and records how the embeddings were made. Each shard holds the
embeddings of one batch of prompts, and `negative.safetensors` holds those of the empty prompt for models that need
them. The index is written before the first shard, and shards are written atomically: missing shards are still to do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from ecad.errors import EcadError, OtherResultsError
from ecad.prompts.embeds import PromptEmbeds
from ecad.prompts.index import INDEX, Entry, Index, Row, index_text
from ecad.utils.files import locked, make_folder, write_atomic
from ecad.utils.lazy import Lazy

if TYPE_CHECKING:
    from torch import Tensor

NEGATIVE = "negative.safetensors"
_LOCK = ".lock"


@dataclass(frozen=True, slots=True)
class Stored:
    """A prompt whose embeddings are on disk.

    Args:
        entry: the prompt.
        file: the file with its embeddings: a shard, or a `.pt` file of the paper's release.
        settings: what the embeddings depend on; empty for `.pt` files.
    """

    entry: Entry
    file: Path
    settings: Mapping[str, object]


def write_store(
    folder: str | os.PathLike[str],
    entries: Iterable[Entry],
    encode: Callable[[Sequence[str]], PromptEmbeds],
    settings: Mapping[str, object],
    batch_size: int,
    overwrite: bool = False,
) -> Iterator[None]:
    """Encode prompts batch by batch into a store; an interrupted run resumes.

    Args:
        folder: folder of the store.
        entries: all its prompts, in order.
        encode: texts -> their embeddings.
        settings: what the embeddings depend on, as JSON values.
        batch_size: prompts per call of `encode`, and per shard.
        overwrite: whether a store of other prompts or settings is overwritten instead of refused.

    Yields:
        None after each batch.

    Raises:
        EcadError: the folder holds another store, or cannot be written.
    """
    with stores_to_write(Path(folder), [(".", entries)], settings, batch_size, overwrite) as stores:
        for name, rows in stores["."].shards():
            write_shard(Path(folder), name, rows, encode)
            yield


@contextmanager
def stores_to_write(
    output_dir: Path,
    folders: Iterable[tuple[str, Iterable[Entry]]],
    settings: Mapping[str, object],
    batch_size: int,
    overwrite: bool = False,
) -> Iterator[dict[str, Index]]:
    """Write the indexes of stores, and lock the folder while their shards are written.

    Args:
        output_dir: parent folder of the stores; one process at a time writes there.
        folders: (folder in `output_dir` or `.`, all its prompts); the prompts are iterated once.
        settings: as for `write_store`.
        batch_size: as for `write_store`.
        overwrite: as for `write_store`.

    Yields:
        folder -> its index.

    Raises:
        EcadError: a folder holds another store, cannot be written, or another process holds the lock.
    """
    make_folder(output_dir)
    busy = f"{output_dir}: another process is writing these embeddings"
    with locked(output_dir / _LOCK, f"{busy}; wait until it ends, stop it, or use another folder"):
        try:
            yield {
                name: _begin(output_dir / name, index_text(entries, settings, batch_size), overwrite)
                for name, entries in folders
            }
        finally:
            (output_dir / _LOCK).unlink(missing_ok=True)


def write_shard(folder: Path, name: str, rows: Sequence[Row], encode: Callable[[Sequence[str]], PromptEmbeds]) -> None:
    """Encode the prompts of one shard, unless the shard exists."""
    from safetensors.torch import save

    if not (folder / name).exists():
        embeds = encode([row["text"] for row in rows])
        if embeds.negative is not None and not (folder / NEGATIVE).exists():
            write_atomic(folder / NEGATIVE, save({"negative": _plain(embeds.negative)}))
        write_atomic(folder / name, save(_tensors([row["stem"] for row in rows], embeds)))


def find_stored(folder: str | os.PathLike[str]) -> dict[str, Sequence[Stored]]:
    """Find all embeddings in a folder and its subfolders.

    Args:
        folder: a store, a folder of `.pt` files, or a folder of such folders.

    Returns:
        folder relative to the given one, or `.` -> its prompts in order, read lazily; sorted by folder.

    Raises:
        EcadError: there are no embeddings, or a store is damaged or unfinished.
    """
    root = Path(folder)
    if not root.is_dir():
        raise EcadError(f"{root}: expected a folder of embeddings, found {'a file' if root.exists() else 'nothing'}")
    found: dict[str, Sequence[Stored]] = {}
    for place in [root, *sorted(path for path in root.rglob("*") if path.is_dir())]:
        if (place / INDEX).is_file():
            found[place.relative_to(root).as_posix()] = _read_index(place)
        elif files := sorted(place.glob("*.pt")):
            found[place.relative_to(root).as_posix()] = _released(files)
    if not found:
        raise EcadError(f"{root}: no embeddings ({INDEX} with its shards, or *.pt files); make them with `ecad embed`")
    return found


def load_stored(stored: Sequence[Stored]) -> PromptEmbeds:
    """The embeddings of some prompts of one folder, on the CPU; no other embeddings are read.

    Raises:
        EcadError: a file is missing or damaged.
    """
    if stored[0].file.suffix == ".pt":
        from ecad.prompts import released_embeds

        return released_embeds.load([item.file for item in stored])
    prompt_embeds = [_read(item.file, item.entry.stem) for item in stored]
    pooled = [_read(item.file, f"{item.entry.stem}.pooled") for item in stored]
    negative = stored[0].file.with_name(NEGATIVE)
    return PromptEmbeds(
        tuple(row for row in prompt_embeds if row is not None),
        tuple(row for row in pooled if row is not None) or None,
        _read(negative, "negative") if negative.exists() else None,
    )


def _released(files: Sequence[Path]) -> list[Stored]:
    from ecad.prompts import released_embeds

    return [Stored(Entry(*released_embeds.describe(file)), file, {}) for file in files]


def _begin(folder: Path, text: Iterable[str], overwrite: bool) -> Index:
    """Write an index, unless the same one exists."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".*.tmp"):  # by a killed run
        left.unlink(missing_ok=True)
    file, new = folder / INDEX, folder / ".index.tmp"
    if not file.exists():
        write_atomic(file, text)
        return Index(file)
    write_atomic(new, text)
    try:
        known = Index(file)
        if known.holds(Index(new)):
            return known
        if not overwrite:
            problem = f"holds embeddings of other prompts, or made with other settings (see {INDEX})"
            raise OtherResultsError(folder, problem)
        # The old index is deleted first, so that no old shard can be taken for a new one.
        for old in (file, *folder.glob("*.safetensors")):
            old.unlink()
        os.replace(new, file)
        return Index(file)
    finally:
        new.unlink(missing_ok=True)


def _read_index(folder: Path) -> Sequence[Stored]:
    index = Index(folder / INDEX)
    missing = sum(not (folder / name).exists() for name in index.names)
    if missing:
        raise EcadError(
            f"{folder}: {missing} of {len(index.names)} shards of embeddings are missing; run the command that makes "
            "them again: it resumes"
        )

    def stored(place: int) -> Stored:
        name, entry = index.entry(place)
        return Stored(entry, folder / name, index.settings)

    return Lazy(stored, range(len(index)))


def _tensors(stems: Sequence[str], embeds: PromptEmbeds) -> dict[str, Tensor]:
    tensors = {stem: _plain(row) for stem, row in zip(stems, embeds.prompt_embeds, strict=True)}
    return tensors | {f"{stem}.pooled": _plain(row) for stem, row in zip(stems, embeds.pooled or (), strict=False)}


def _plain(tensor: Tensor) -> Tensor:
    import torch

    # safetensors does not write a row that shares memory with its batch.
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def _read(file: Path, key: str) -> Tensor | None:
    """One tensor of a file; None for pooled embeddings that the file does not have."""
    try:
        with safe_open(file, framework="pt") as tensors:
            return None if key.endswith(".pooled") and key not in tensors.keys() else tensors.get_tensor(key)  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise EcadError(
            f"{file}: cannot read the embeddings of {key!r}: {reason}; delete this file and make it again"
        ) from error
