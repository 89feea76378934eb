"""Images of stored prompts by the built-in model, and what a folder of them holds."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ecad.cost.macs import macs_table
from ecad.image_generators import ImageGenerator, get_image_generator
from ecad.jobs.encode import embed, embedding_settings, numbered
from ecad.jobs.generate import Batch, job_of, make_images
from ecad.prompts import Prompt
from ecad.prompts.store import stores_to_write
from ecad.schedules import CacheSchedule, heuristics

TEXTS = ["a 3d crab on a blue background", "a google owl on a red background", "a pear"]
STEPS = 3


@pytest.fixture(scope="module")
def generator() -> ImageGenerator:
    return get_image_generator("EmojiImageGenerator", device="cpu")


@pytest.fixture(scope="module")
def every_2(generator: ImageGenerator) -> CacheSchedule:
    return heuristics.every_n(macs_table(generator.architecture).sites, STEPS, 2)


@pytest.fixture(scope="module")
def stores(generator: ImageGenerator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embeddings")
    prompts = [Prompt(f"{i:04d}", text) for i, text in enumerate(TEXTS)]
    entries = list(numbered(prompts))
    folders = [("a", entries[:2]), ("b", entries[2:])]
    with stores_to_write(folder, folders, embedding_settings(generator), batch_size=8) as stores:
        list(embed(generator, folder, stores))
    return folder


def run(
    generator: ImageGenerator,
    folder: Path,
    schedules: dict[str, CacheSchedule | None],
    batches: list[Batch],
    **rest: object,
) -> int:
    jobs = [job_of(generator, schedule, folder / name) for name, schedule in schedules.items()]
    return sum(make_images(generator, jobs, batches, folder, **rest))  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def counting(generator: ImageGenerator, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The batch sizes that the pipeline is called with from now on."""
    sizes: list[int] = []
    made = ImageGenerator.generate

    def generate(self: ImageGenerator, embeds: object, seeds: list[int], *args: object, **rest: object) -> np.ndarray:
        sizes.append(len(seeds))
        return made(self, embeds, seeds, *args, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(ImageGenerator, "generate", generate)
    return sizes


def changed(generator: ImageGenerator, **parts: object) -> ImageGenerator:
    """The same generator with other components."""
    pipe = copy.copy(generator.pipe)
    for name, part in parts.items():
        setattr(pipe, name, part)
    return replace(generator, pipe=pipe)
