"""Encodes prompts into stores, and assigns their folders, names and seeds."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count, islice
from pathlib import Path

from ecad.execution import Executor, Job, Task
from ecad.image_generators import ImageGenerator, get_image_generator
from ecad.prompts.files import Prompt
from ecad.prompts.index import Entry, Index, Row
from ecad.prompts.names import mjhq_stem, prompt_stem
from ecad.prompts.store import write_shard
from ecad.utils.files import as_file_name
from ecad.utils.seeds import check_seeds
from ecad.utils.versions import PARTS

# Captions of COCO per folder in the paper's release.
MEGABATCH = 3000


def numbered(prompts: Iterable[Prompt], seed: int = 0, seed_step: int = 0) -> Iterator[Entry]:
    """Prompts with their seeds, named by their index.

    >>> [entry.stem for entry in numbered([Prompt("7", "a fox"), Prompt("0001", "an owl")], seed=5, seed_step=1)]
    ['0000__prompt_id-7__prompt_seed-005', '0001__prompt_seed-006']
    """
    for place, prompt in enumerate(prompts):
        own = seed + seed_step * place
        check_seeds([own])
        yield Entry(prompt_stem(place, prompt.id, own), prompt, own)


def megabatches(entries: Iterable[Entry]) -> Iterator[tuple[str, list[Entry]]]:
    """COCO's folders, `megabatch_0` and so on, with 3,000 prompts each; names are numbered across all folders."""
    left = iter(entries)
    for number in count():
        if not (found := list(islice(left, MEGABATCH))):
            return
        yield f"megabatch_{number}", found


def by_category(prompts: Iterable[Prompt], seed: int = 0, seed_step: int = 0) -> Iterable[tuple[str, Sequence[Entry]]]:
    """MJHQ's folders, one per category; prompts are named by their ids.

    >>> sorted(name for name, _ in by_category([Prompt("b7", "a pie", "food"), Prompt("c8", "a fox", "animals")]))
    ['animals', 'food']
    """
    folders: dict[str, list[Entry]] = {}
    for place, prompt in enumerate(prompts):
        own = seed + seed_step * place
        check_seeds([own])
        entry = Entry(mjhq_stem(prompt.id), prompt, own)
        folders.setdefault(as_file_name(prompt.category or "none"), []).append(entry)
    return folders.items()


def embed(generator: ImageGenerator, output_dir: Path, stores: Mapping[str, Index]) -> Iterator[int]:
    """Encode prompts into stores with the dtype of the denoiser; an interrupted run resumes.

    Args:
        generator: its text encoder is used.
        output_dir: parent folder of the stores.
        stores: folder in `output_dir` -> its index, from `stores_to_write`.

    Yields:
        for each shard, the number of its prompts that were truncated to the model's length; `num_shards` in all.

    Raises:
        EcadError: a file cannot be written.
    """
    for folder, index in stores.items():
        for name, rows in index.shards():
            write_shard(output_dir / folder, name, rows, generator.encode)
            yield generator.count_cut([row["text"] for row in rows])


def embed_on(executor: Executor, output_dir: Path, stores: Mapping[str, Index]) -> Iterator[int]:
    """`embed` on workers built by `worker`; each encodes and writes whole shards."""
    tasks = (
        Task(str(output_dir / folder / name), (os.path.abspath(output_dir / folder), name, rows))
        for folder, index in stores.items()
        for name, rows in index.shards()
    )
    yield from (cut for _, cut in executor.finish(tasks))


def worker(image_generator: str, weights: str | None, device: str) -> Job:
    """Load a text encoder; a task is (folder of the store, file of the shard, rows of its prompts)."""
    generator = get_image_generator(image_generator, weights, device=device, only="text")

    def work(task: tuple[str, str, list[Row]]) -> int:
        folder, name, rows = task
        write_shard(Path(folder), name, rows, generator.encode)
        return generator.count_cut([row["text"] for row in rows])

    return Job(work, {"settings": embedding_settings(generator)})


def embedding_settings(generator: ImageGenerator) -> dict[str, object]:
    """What embeddings depend on, as JSON values."""
    parts = generator.text_parts_fingerprints()
    return {
        "image_generator": generator.name,
        "text_encoder": generator.text_fingerprint(),
        "dtype": str(generator.dtype).removeprefix("torch."),
        "max_tokens": generator.max_tokens,
        **({PARTS: parts} if parts else {}),
    }


def num_shards(stores: Mapping[str, Index]) -> int:
    """The number of batches that `embed` encodes."""
    return sum(len(index.names) for index in stores.values())
