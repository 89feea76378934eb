"""How long a prompt file is costs no memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

from ecad.images.folder import MANIFEST, begin_folder
from ecad.images.writer import scratch_folder
from ecad.jobs.encode import megabatches, numbered
from ecad.jobs.generate import cut_batches
from ecad.prompts import PromptFile, match_images
from ecad.prompts.store import find_stored, stores_to_write

FEW, MANY = 3_000, 9_000


def peak(work: Callable[[], None]) -> int:
    """The most memory that Python takes while it works, in bytes."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def store(folder: Path) -> None:
    prompts = PromptFile(folder / "p.txt")
    for name, folders in (("one", [(".", numbered(prompts))]), ("many", megabatches(numbered(prompts)))):
        with stores_to_write(folder / name, folders, {}, 64) as stores:
            assert sum(len(rows) for index in stores.values() for _, rows in index.shards()) == len(prompts)
            for place, index in stores.items():
                for shard in index.names:
                    (folder / name / place / shard).touch()


def read(folder: Path) -> None:
    batches = cut_batches(find_stored(folder / "one"), [0], 100)
    for _ in range(2):  # a folder that is begun, and one that goes on
        rows = ((item.file, item.row()) for batch in batches for item in batch)
        with scratch_folder(folder / "images", (1, 1)) as scratch:
            begin_folder(folder / "images", {}, rows, scratch)


def score(folder: Path) -> None:
    names = [f"{place:04d}__prompt_seed-000__image_seed-000.png" for place in range(0, 1000, 10)]
    for mode in ("image_reward", "parti"):
        assert len(match_images(names, PromptFile(folder / "p.txt"), mode)[0]) == 100  # type: ignore[arg-type]


def test_memory_does_not_grow_with_the_number_of_prompts(tmp_path: Path) -> None:
    peaks = {}
    for count in (FEW, MANY):
        folder = tmp_path / str(count)
        folder.mkdir()
        (folder / "p.txt").write_text("".join(f"a photo of the {i}th fox on a hill\n" for i in range(count)))
        peaks[count] = [peak(lambda work=work, folder=folder: work(folder)) for work in (store, store, read, score)]  # type: ignore[misc]
        manifest = (folder / "images" / MANIFEST).read_text().splitlines()
        assert len(manifest) == count + 1
    for few, many in zip(peaks[FEW], peaks[MANY], strict=True):
        # Of each prompt two hashes of eight bytes, of each shard its name and place; the rest does not grow.
        assert many - few < 32 * (MANY - FEW) + 375_000
