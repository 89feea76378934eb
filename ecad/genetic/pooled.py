"""Making and scoring the images of candidates on many workers, each with a model and a scorer of its own.

A task is one batch of images under one schedule and travels as bits; the prompts are encoded once by each worker. The
batches are those that one process would make, so the scores are the same to the last bit.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from ecad.cost.architectures import Architecture
from ecad.execution import Executor, Failure, Task
from ecad.execution import Job as WorkerJob
from ecad.execution.command import Spread, everywhere
from ecad.genetic.evaluator import Evaluator, Job, LocalEvaluator, all_items, checked
from ecad.genetic.of_generator import Quality, evaluator_of, problem_for, problem_of
from ecad.genetic.problem import Problem
from ecad.image_generators import get_image_generator
from ecad.prompts import Prompt
from ecad.schedules import CacheSchedule


@dataclass(frozen=True)
class Images:
    """What candidates are judged by: some seeds of some prompts."""

    prompts: Sequence[Prompt]
    seeds: Sequence[int]


@dataclass(frozen=True)
class PooledEvaluator:
    """An evaluator whose images are made by workers.

    Args:
        executor: of workers that `worker` builds.
        which: place of `images` among those that the workers know.
        images: what candidates are judged by.
        batch_size: images made at once.
    """

    executor: Executor
    which: int
    images: Images
    batch_size: int

    @property
    def prompts(self) -> Sequence[Prompt]:
        return self.images.prompts

    @property
    def seeds(self) -> Sequence[int]:
        return self.images.seeds

    @property
    def scorer(self) -> str:
        return str(self.executor.facts["scorer"])

    @property
    def decibels(self) -> bool:
        return bool(self.executor.facts["decibels"])

    @property
    def settings(self) -> Mapping[str, Any]:
        return dict(self.executor.facts["settings"])

    def run(self, jobs: Iterable[Job | None]) -> Iterator[tuple[int, np.ndarray | Failure]]:
        places = {item: place for place, item in enumerate(all_items(self.prompts, self.seeds))}

        def task(job: Job) -> Task:
            schedule, items = job
            first = places[items[0]]
            payload = self.which, schedule.num_steps, np.packbits(schedule.recompute).tobytes(), first
            return Task(f"{schedule.name}, images {first} to {first + len(items) - 1}", payload)

        yield from self.executor.run(None if job is None else task(job) for job in jobs)


@contextmanager
def evaluators(
    spread: Spread,
    folder: Path,
    images: Sequence[Images],
    *,
    image_generator: str,
    weights: str | os.PathLike[str] | None = None,
    device: str = "auto",
    quality: Quality = "psnr",
    batch_size: int = 8,
) -> Iterator[tuple[Problem, Callable[[int], Evaluator], Executor | None]]:
    """The problem of an image generator, an evaluator for each of some sets of images by its place, and the workers.

    Args:
        spread: over which workers; in this process if there is one only.
        folder: `failures.log` goes into it.
        images: the sets; prompts are encoded when a set is first used.
        image_generator, weights, device: which model.
        quality: how images are scored, see `evaluator_of`.
        batch_size: images made at once; also what a worker is given at once.

    Raises:
        EcadError: the model or the workers cannot be had.
    """
    options: dict[str, Any] = {"image_generator": image_generator, "weights": everywhere(weights), "device": device}
    if spread.in_process:
        generator = get_image_generator(image_generator, weights, device=device)
        make = partial(evaluator_of, generator, quality=quality, batch_size=batch_size)
        yield problem_of(generator), lambda which: make(images[which].prompts, images[which].seeds), None
        return
    known = [[[[prompt.id, prompt.text] for prompt in one.prompts], list(one.seeds)] for one in images]
    options.update(quality=quality, batch_size=batch_size, images=known)
    with spread.open("ecad.genetic.pooled:worker", options, folder) as executor:
        facts = executor.facts
        problem = problem_for(Architecture(**facts["architecture"]), facts["steps"], facts["guidance_scale"])
        yield problem, lambda which: PooledEvaluator(executor, which, images[which], batch_size), executor


def worker(
    image_generator: str,
    weights: str | None,
    device: str,
    quality: Quality,
    batch_size: int,
    images: Sequence[tuple[Sequence[tuple[str, str]], Sequence[int]]],
) -> WorkerJob:
    """Load a generator and a scorer; a task is (which of `images`, steps, packed bits, place of the first image)."""
    generator = get_image_generator(image_generator, weights, device=device)
    problem = problem_of(generator)
    shape, sites, config = problem.shape, problem.template.sites, problem.template.config

    @cache
    def evaluator(which: int) -> LocalEvaluator:
        prompts, seeds = images[which]
        return evaluator_of(generator, [Prompt(*prompt) for prompt in prompts], seeds, quality, batch_size)

    def work(task: tuple[int, int, bytes, int]) -> np.ndarray:
        which, steps, packed, first = task
        bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=steps * shape[1]).astype(bool)
        schedule = CacheSchedule(bits.reshape(steps, shape[1]), sites, config=config)
        own = evaluator(which)
        items = all_items(own.prompts, own.seeds)[first : first + batch_size]
        [(_, scores)] = own.run([(schedule, items)])
        return checked(scores, schedule, items, own.scorer)

    own = evaluator(0)
    architecture = asdict(generator.architecture)
    return WorkerJob(
        work,
        {
            "architecture": architecture | {"transformer": dict(architecture["transformer"])},
            "steps": generator.steps,
            "guidance_scale": generator.guidance_scale,
            "scorer": own.scorer,
            "decibels": own.decibels,
            "settings": dict(own.settings),
        },
    )
