"""Generates many images on workers; each worker does whole units of work and writes their files."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ecad.errors import EcadWarning
from ecad.execution import Executor, Task
from ecad.execution import Job as WorkerJob
from ecad.image_generators.registry import get_image_generator
from ecad.images.writer import ImageWriter, scratch_folder
from ecad.jobs.conditions import Conditions, conditions_of
from ecad.jobs.generate import (
    Batch,
    Job,
    begin_folders,
    cut_batches,
    jobs_of,
    unit_maker,
    units,
)
from ecad.prompts.store import find_stored
from ecad.schedules.files import load_schedules


@dataclass(frozen=True)
class Order:
    """The images to generate, as plain data for workers on any machine that shares the folders.

    Args:
        input_dir: folder of embeddings, absolute.
        schedule_dir: folder of schedules, absolute.
        output_dir: folder of the images, absolute.
        names: names of the schedules in `schedule_dir`.
        seeds: seeds of the images of each prompt.
        batch_size: images per batch.
        seed_in_name: whether file names contain the image's seed.
        shard: (i, n) does the i-th of n equal parts of the work, i from 1.
        overwrite: whether images with other settings are overwritten instead of refused.
    """

    input_dir: str
    schedule_dir: str
    output_dir: str
    names: Sequence[str]
    seeds: Sequence[int]
    batch_size: int
    seed_in_name: bool
    shard: tuple[int, int]
    overwrite: bool = False


def make_images_on(
    executor: Executor, order: Order, output_dir: Path
) -> tuple[list[Job], dict[str, str], int, Iterator[int]]:
    """`make_images` on workers built by `worker`.

    Returns:
        the jobs, the schedules that do not fit, the number of units of work, and the number of images of each unit.
    """
    facts = executor.facts
    for message in facts["warnings"]:
        warnings.warn(message, EcadWarning, stacklevel=2)
    schedules = load_schedules(order.schedule_dir)
    jobs = [Job(output_dir / name, schedules[name], call) for name, call in facts["calls"].items()]
    batches = _batches(order)
    todo = units(jobs, batches, order.shard)

    def steps() -> Iterator[int]:
        with scratch_folder(output_dir, order.shard) as scratch:
            begin_folders(jobs, batches, Conditions(**facts["conditions"]), scratch, order.overwrite)
            tasks = (
                Task(
                    f"{alike[0].folder.name}, {batch[0].file} and {len(batch) - 1} more",
                    (place, os.path.abspath(scratch)),
                )
                for place, (batch, alike) in enumerate(todo)
            )
            yield from (done for _, done in executor.finish(tasks))

    return jobs, facts["misfits"], len(todo), steps()


def worker(image_generator: str, weights: str | None, device: str, exact: bool, order: Order) -> WorkerJob:
    """Load a generator; a task is (index of a unit of work, folder for temporary files)."""
    generator = get_image_generator(image_generator, weights, device=device, only="images")
    output_dir, batches = Path(order.output_dir), _batches(order)
    schedules = load_schedules(order.schedule_dir)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("error" if exact else "always", EcadWarning)
        jobs, misfits = jobs_of(generator, {name: schedules[name] for name in order.names}, output_dir)
    warnings.simplefilter("ignore", EcadWarning)  # the driver reports them once
    todo, make = units(jobs, batches, order.shard), unit_maker(generator)

    def work(task: tuple[int, str]) -> int:
        place, scratch = task
        with ImageWriter(Path(scratch)) as writer:
            return make(todo[place], writer)

    facts: dict[str, object] = {
        "conditions": asdict(conditions_of(generator, batches)),
        "calls": {job.folder.relative_to(output_dir).as_posix(): dict(job.call) for job in jobs},
        "misfits": misfits,
        "warnings": list(dict.fromkeys(str(one.message) for one in told if issubclass(one.category, EcadWarning))),
    }
    return WorkerJob(work, facts)


def _batches(order: Order) -> Sequence[Batch]:
    return cut_batches(find_stored(order.input_dir), order.seeds, order.batch_size, order.seed_in_name)
