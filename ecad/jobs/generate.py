"""Generates many images: schedules x stored prompts x seeds, in fixed batches.

The unit of work is a batch under a schedule. Its images follow from the settings alone, never from the files that
exist, so that an interrupted run ends with the same bytes as an uninterrupted one.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ecad.cost.inputs import check_size
from ecad.errors import EcadError, ScheduleError
from ecad.image_generators.generator import ImageGenerator
from ecad.images.folder import begin_folder, is_whole
from ecad.images.writer import ImageWriter, scratch_folder
from ecad.jobs.conditions import Conditions, conditions_of
from ecad.prompts.embeds import PromptEmbeds
from ecad.prompts.names import image_stem
from ecad.prompts.store import Stored, load_stored
from ecad.runtime.cache import cached
from ecad.schedules import CacheSchedule
from ecad.schedules.files import use_each
from ecad.schedules.plan import executed
from ecad.schedules.plan_key import is_uncached, plan_key
from ecad.schedules.rows import steps_of
from ecad.sites.readers import readers
from ecad.utils.lazy import Lazy
from ecad.utils.seeds import check_seeds
from ecad.utils.versions import without_parts

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Item:
    """One image: its prompt, its seed, and its file in the folder of a schedule."""

    stored: Stored
    seed: int
    file: str

    @property
    def noise_seed(self) -> int:
        """The seed of the noise: the prompt's seed plus the image's."""
        return self.stored.entry.seed + self.seed

    def row(self) -> dict[str, object]:
        """The image's row of the manifest."""
        entry = self.stored.entry
        return {
            "prompt_id": entry.prompt.id,
            "prompt": entry.prompt.text,
            "category": entry.prompt.category,
            "prompt_seed": entry.seed,
            "image_seed": self.seed,
        }


Batch = tuple[Item, ...]


@dataclass(frozen=True)
class Job:
    """All images under one schedule.

    Args:
        folder: folder of the images.
        schedule: the schedule; None for uncached images.
        call: steps, guidance_scale, height and width.
    """

    folder: Path
    schedule: CacheSchedule | None
    call: Mapping[str, Any]

    @cached_property
    def plan(self) -> str:
        """Sixteen hex digits that two schedules share if they make the same images; `uncached` without caching."""
        if self.schedule is None or is_uncached(self.schedule):
            return "uncached"
        return hashlib.sha256(plan_key(self.schedule)).hexdigest()[:16]

    @cached_property
    def older_plan(self) -> str | None:
        """`plan` in the format of releases that only compared bits; None if that does not identify the images."""
        schedule = self.schedule
        if schedule is None or is_uncached(schedule):
            return "uncached"
        if schedule.forecast or schedule.custom_compute or schedule.output_weights is not None:
            return None
        runs = executed(schedule.recompute, readers(schedule.sites))
        return hashlib.sha256(np.packbits(runs).tobytes()).hexdigest()[:16]


# A batch, and the jobs that make the same images from it.
Unit = tuple[Batch, list[Job]]


def jobs_of(
    generator: ImageGenerator, schedules: Mapping[str, CacheSchedule], output_dir: Path
) -> tuple[list[Job], dict[str, str]]:
    """A job for each schedule that fits a generator, in a folder with its name; and the reasons why others do not fit.

    Raises:
        EcadError: no schedule fits.
    """
    jobs, misfits = use_each(
        schedules, lambda name, schedule: job_of(generator, schedule, output_dir / name), generator.name
    )
    return list(jobs.values()), misfits


def job_of(
    generator: ImageGenerator,
    schedule: CacheSchedule | None,
    folder: Path,
    *,
    steps: int | None = None,
    guidance_scale: float | None = None,
    height: int | None = None,
    width: int | None = None,
) -> Job:
    """A job with its settings. Arguments take precedence over the schedule's config, and that over the generator.

    Raises:
        ScheduleError: the schedule does not fit the generator or the number of steps, or its config has other values
            than numbers.
    """
    architecture = generator.architecture
    config = {} if schedule is None else _numbers(schedule.config)
    sizes = config if architecture.size_from_schedule else {}
    size = {
        "height": _chosen(height, sizes, "height", architecture.height),
        "width": _chosen(width, sizes, "width", architecture.width),
    }
    check_size(architecture, **size)
    call = {
        "steps": _steps_of(generator, schedule, steps),
        "guidance_scale": _chosen(guidance_scale, config, "guidance_scale", generator.guidance_scale),
        **size,
    }
    if schedule is not None:
        with cached(generator.pipe, schedule):
            pass
    return Job(folder, schedule, call)


def _steps_of(generator: ImageGenerator, schedule: CacheSchedule | None, steps: int | None) -> int:
    if schedule is None:
        return generator.steps if steps is None else steps
    fitting = steps_of(generator.pipe.scheduler, schedule.num_steps, schedule.name)
    if steps is not None and generator.rows(steps) != schedule.num_steps:
        asked = f"not for {steps}: resample it (`ecad schedule resample`), or leave `steps` out"
        raise ScheduleError(f"schedule {schedule.name!r} is for {fitting} steps, {asked}")
    return fitting if steps is None else steps


def cut_batches(
    found: Mapping[str, Sequence[Stored]], seeds: Sequence[int], batch_size: int, seed_in_name: bool = True
) -> Sequence[Batch]:
    """Every prompt with every seed, in batches from one folder of embeddings each.

    Args:
        found: folder -> its prompts, from `find_stored`.
        seeds: seeds of the images of each prompt.
        batch_size: images per batch.
        seed_in_name: whether file names contain the image's seed.

    Raises:
        EcadError: two images would have the same name, or PyTorch does not accept a seed.
    """
    shown = seeds if seed_in_name else [None] * len(seeds)
    folders = list(found.items())
    # Number of batches up to the end of each folder.
    ends = list(accumulate(-(-len(prompts) * len(seeds) // batch_size) for prompts in found.values()))

    def cut(place: int) -> Batch:
        which = bisect_right(ends, place)
        folder, prompts = folders[which]
        start = (place - (ends[which - 1] if which else 0)) * batch_size
        items = range(start, min(start + batch_size, len(prompts) * len(seeds)))
        return tuple(item(folder, prompts[i // len(seeds)], i % len(seeds)) for i in items)

    def item(folder: str, stored: Stored, i: int) -> Item:
        file = f"{image_stem(stored.entry.stem, shown[i])}.png"
        return Item(stored, seeds[i], file if folder == "." else f"{folder}/{file}")

    batches = Lazy(cut, range(ends[-1]))
    check_seeds(item.noise_seed for batch in batches for item in batch)
    if twice := _twice(batches):
        raise EcadError(f"{twice}: several images would have this name; put the seed into names, and give it once")
    return batches


def _twice(batches: Sequence[Batch]) -> str | None:
    """A name that two images share, if any; only eight bytes per name are in memory."""
    hashes = np.sort(np.fromiter((hash(item.file) for batch in batches for item in batch), np.int64))
    alike = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    names = [item.file for batch in batches for item in batch if hash(item.file) in alike] if alike else []
    return next((name for name in names if names.count(name) > 1), None)


def make_images(
    generator: ImageGenerator,
    jobs: Sequence[Job],
    batches: Sequence[Batch],
    output_dir: Path,
    shard: tuple[int, int] = (1, 1),
    overwrite: bool = False,
) -> Iterator[int]:
    """Generate the missing images of all jobs; files are written while the denoiser runs.

    Args:
        generator: the generator, loaded once for all schedules.
        jobs: one job per schedule.
        batches: the images of each job.
        output_dir: parent folder of the jobs' folders.
        shard: (i, n) does the i-th of n equal parts of the work, i from 1.
        overwrite: whether images with other settings in a job's folder are overwritten instead of refused.

    Yields:
        the number of images of each unit of work, generated or already there; `len(units(...))` in all.

    Raises:
        EcadError: a folder holds images with other settings, embeddings do not fit the generator, or a file cannot be
            read or written.
    """
    made = conditions_of(generator, batches)
    make = unit_maker(generator)
    with scratch_folder(output_dir, shard) as scratch, ImageWriter(scratch) as writer:
        begin_folders(jobs, batches, made, scratch, overwrite)
        # Several jobs take turns, so that the embeddings of a batch are read once.
        only = jobs[0].schedule if len(jobs) == 1 else None
        with nullcontext() if only is None else generator.enabled(only):
            for unit in units(jobs, batches, shard):
                yield make(unit, writer)


def begin_folders(
    jobs: Sequence[Job], batches: Sequence[Batch], made: Conditions, scratch: Path, overwrite: bool = False
) -> None:
    """Write the manifests of all jobs' folders, see `begin_folder`."""
    for job in jobs:
        rows = ((item.file, item.row()) for batch in batches for item in batch)
        settings = {**made.settings, "plan": job.plan, **job.call}
        older = None if job.older_plan is None else without_parts(settings) | {"plan": job.older_plan}
        begin_folder(job.folder, settings, rows, scratch, overwrite, older=older, made_with=made.made_with)


def unit_maker(generator: ImageGenerator) -> Callable[[Unit, ImageWriter], int]:
    """A function that generates the missing images of a unit of work and returns the number of its images."""
    loaded: tuple[Batch, PromptEmbeds] | None = None

    def make(unit: Unit, writer: ImageWriter) -> int:
        nonlocal loaded
        batch, alike = unit
        if missing := [job for job in alike if not _is_done(job, batch)]:
            if loaded is None or loaded[0] != batch:
                loaded = batch, stored_embeds(generator, batch)
            images = generator.generate(
                loaded[1], [item.noise_seed for item in batch], missing[0].schedule, **missing[0].call
            )
            writer.write(images, [[job.folder / item.file for job in missing] for item in batch])
        return len(batch) * len(alike)

    return make


def units(jobs: Sequence[Job], batches: Sequence[Batch], shard: tuple[int, int]) -> Sequence[Unit]:
    """A shard's units of work: a batch, and the jobs that make the same images from it."""
    alike: dict[tuple[object, ...], list[Job]] = {}
    for job in jobs:
        alike.setdefault((job.plan, *job.call.values()), []).append(job)
    groups = list(alike.values())
    every = range(len(batches) * len(groups))
    part, parts = shard
    return Lazy(lambda place: (batches[place // len(groups)], groups[place % len(groups)]), every[part - 1 :: parts])


def _is_done(job: Job, batch: Batch) -> bool:
    return all(is_whole(job.folder / item.file, (job.call["width"], job.call["height"])) for item in batch)


def stored_embeds(generator: ImageGenerator, batch: Batch) -> PromptEmbeds:
    """The embeddings of a batch, one entry per image, with the generator's device and dtype.

    Raises:
        EcadError: they cannot be read, or are of another model.
    """
    # Each prompt is read once, even if the batch has several of its seeds.
    distinct = {item.stored.entry.stem: item.stored for item in batch}
    place = {stem: index for index, stem in enumerate(distinct)}
    embeds = load_stored(list(distinct.values()))
    width = generator.text_width
    for stored, row in zip(distinct.values(), embeds.prompt_embeds, strict=True):
        if row.shape[-1] != width:
            raise EcadError(
                f"{stored.file}: the embeddings have width {row.shape[-1]}, {generator.name} needs {width}; make them "
                "with this image generator"
            )
    moved = embeds.to(generator.pipe.device, generator.dtype)
    return moved[[place[item.stored.entry.stem] for item in batch]]


def _numbers(config: Mapping[str, object]) -> Mapping[str, object]:
    for name, kinds in (("guidance_scale", (int, float)), ("height", (int,)), ("width", (int,))):
        value = config.get(name, 1)
        if isinstance(value, bool) or not isinstance(value, kinds) or not 0 <= value < float("inf"):
            raise ScheduleError(f"config: not a {name}", expected="a number, 0 or more", found=repr(value))
    return config


def _chosen(given: T | None, config: Mapping[str, Any], name: str, default: T) -> T:
    """The given value, else the schedule's, else the generator's."""
    return config.get(name, default) if given is None else given
