"""Encoding prompts into stores: which prompt goes into which folder, under which name, with which seed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ecad.execution import Executor, Job, Task
from ecad.image_generators import ImageGenerator, get_image_generator
from ecad.prompts.files import Prompt
from ecad.prompts.names import as_file_name, mjhq_stem, prompt_stem
from ecad.prompts.store import Entry, store_to_write, write_shard, write_store

# Lines of COCO's captions that the method's first release keeps in one folder.
MEGABATCH = 3000


def numbered(prompts: Sequence[Prompt], seed: int = 0, seed_step: int = 0) -> list[Entry]:
    """Prompts named by their place, each with its seed.

    >>> [entry.stem for entry in numbered([Prompt("7", "a fox"), Prompt("0001", "an owl")], seed=5, seed_step=1)]
    ['0000__prompt_id-7__prompt_seed-005', '0001__prompt_seed-006']
    """
    seeds = [seed + seed_step * place for place in range(len(prompts))]
    return [
        Entry(prompt_stem(place, prompt.id, own), prompt, own)
        for place, (prompt, own) in enumerate(zip(prompts, seeds, strict=True))
    ]


def megabatches(entries: Sequence[Entry]) -> dict[str, Sequence[Entry]]:
    """COCO's folders: `megabatch_0` with the first 3,000 prompts, and so on; names count on through all."""
    return {
        f"megabatch_{start // MEGABATCH}": entries[start : start + MEGABATCH]
        for start in range(0, len(entries), MEGABATCH)
    }


def by_category(prompts: Sequence[Prompt], seed: int = 0, seed_step: int = 0) -> dict[str, Sequence[Entry]]:
    """MJHQ's folders, one a category; prompts are named by their ids.

    >>> sorted(by_category([Prompt("b7", "a pie", "food"), Prompt("c8", "a fox", "animals")]))
    ['animals', 'food']
    """
    folders: dict[str, list[Entry]] = {}
    for place, prompt in enumerate(prompts):
        entry = Entry(mjhq_stem(prompt.id), prompt, seed + seed_step * place)
        folders.setdefault(as_file_name(prompt.category or "none"), []).append(entry)
    return dict(folders)


def embed(
    generator: ImageGenerator,
    folders: Mapping[str, Sequence[Entry]],
    output_dir: Path,
    batch_size: int,
    replace: bool = False,
) -> Iterator[int]:
    """Encode prompts into stores of the precision that the denoiser computes in; goes on where it was interrupted.

    Args:
        generator: whose text encoder is used.
        folders: folder in `output_dir` (`.` is itself) -> its prompts.
        output_dir: where the stores go.
        batch_size: prompts encoded at once, and kept in one shard.
        replace: stores of other prompts or settings make room instead of being refused.

    Yields:
        how many prompts of the next batch were too long for the model and so were cut; folder by folder, `num_batches`
        in all.

    Raises:
        EcadError: a folder holds another store, or cannot be written.
    """
    settings = _settings(generator)
    for name, entries in folders.items():
        texts = [entry.prompt.text for entry in entries]
        batches = write_store(output_dir / name, entries, generator.encode, settings, batch_size, replace)
        for number, _ in enumerate(batches):
            yield generator.count_cut(texts[number * batch_size : (number + 1) * batch_size])


def embed_on(
    executor: Executor, folders: Mapping[str, Sequence[Entry]], output_dir: Path, batch_size: int
) -> Iterator[int]:
    """`embed` by workers that `worker` builds: each encodes whole shards, and writes them itself."""
    settings = executor.facts["settings"]
    with ExitStack() as stack:
        stores = {
            output_dir / name: stack.enter_context(store_to_write(output_dir / name, entries, settings, batch_size))
            for name, entries in folders.items()
        }
        tasks = (
            Task(str(folder / name), (os.path.abspath(folder), name, rows))
            for folder, shards in stores.items()
            for name, rows in shards.items()
        )
        yield from (cut for _, cut in executor.finish(tasks))


def worker(image_generator: str, weights: str | None, device: str) -> Job:
    """Load a text encoder; a task is (folder of the store, file of the shard, rows of its prompts)."""
    generator = get_image_generator(image_generator, weights, device=device, only="text")

    def work(task: tuple[str, str, list[dict[str, Any]]]) -> int:
        folder, name, rows = task
        write_shard(Path(folder), name, rows, generator.encode)
        return generator.count_cut([row["text"] for row in rows])

    return Job(work, {"settings": _settings(generator)})


def _settings(generator: ImageGenerator) -> dict[str, Any]:
    """What embeddings depend on."""
    return {
        "image_generator": generator.name,
        "text_encoder": generator.text_fingerprint(),
        "dtype": str(generator.dtype).removeprefix("torch."),
        "max_tokens": generator.max_tokens,
    }


def num_batches(folders: Mapping[str, Sequence[Entry]], batch_size: int) -> int:
    """How many batches `embed` encodes."""
    return sum(-(-len(entries) // batch_size) for entries in folders.values())
