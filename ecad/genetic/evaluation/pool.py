"""An evaluator whose images are made by workers. This module loads no model; the workers do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ecad.calibration.step_choice import Outputs
from ecad.errors import EcadError
from ecad.execution import Executor, Failure, Task
from ecad.genetic.evaluation.evaluator import Job
from ecad.genetic.study.items import all_items
from ecad.prompts import Prompt
from ecad.schedules import CacheSchedule


@dataclass(frozen=True)
class ImageSet:
    """The images that candidates are scored on, and the scorer.

    Args:
        prompts: of the images.
        seeds: of the images of each prompt.
        quality: the scorer; see `evaluator_of`.
    """

    prompts: Sequence[Prompt]
    seeds: Sequence[int]
    quality: str = "psnr"


@dataclass(frozen=True)
class PooledEvaluator:
    """An evaluator whose images are made by workers.

    Args:
        executor: of workers that `workers.worker` builds.
        which: index of `images` among the workers' image sets.
        images: what candidates are scored on.
        batch_size: images per batch.
    """

    executor: Executor
    which: int
    images: ImageSet
    batch_size: int

    @property
    def prompts(self) -> Sequence[Prompt]:
        return self.images.prompts

    @property
    def seeds(self) -> Sequence[int]:
        return self.images.seeds

    @property
    def scorer(self) -> str:
        return self.images.quality

    @property
    def decibels(self) -> bool:
        return self.images.quality == "psnr"

    @cached_property
    def settings(self) -> Mapping[str, object]:
        # Those of the first set are known: all workers must have the same.
        return dict(
            self.executor.facts["settings"] if self.which == 0 else self._ask("settings", ("settings", self.which))
        )

    def run(self, jobs: Iterable[Job | None]) -> Iterator[tuple[int, np.ndarray | Failure]]:
        places = {item: place for place, item in enumerate(all_items(self.prompts, self.seeds))}

        def task(job: Job) -> Task:
            schedule, items = job
            first = places[items[0]]
            packed = np.packbits(schedule.recompute).tobytes()
            outputs = schedule.forecast, schedule.output_products, schedule.output_weights
            payload = self.which, schedule.num_steps, packed, *outputs, first
            return Task(f"{schedule.name}, images {first} to {first + len(items) - 1}", payload)

        yield from self.executor.run(None if job is None else task(job) for job in jobs)

    def outputs(self) -> Outputs | None:
        found = self._ask("uncached images", ("outputs", self.which))
        return None if found is None else Outputs(*found)

    def _ask(self, what: str, payload: tuple[str, int]) -> Any:
        """What the workers' own evaluator has in an attribute."""
        [(_, found)] = self.executor.run([Task(what, payload)])
        if isinstance(found, Failure):
            raise EcadError(f"{what}: the workers gave up: {found.reason}")
        return found


def fitted_on(executor: Executor, which: int, schedules: Sequence[CacheSchedule]) -> Iterator[CacheSchedule]:
    """Fit output weights to schedules on workers.

    Args:
        executor: of workers that `workers.worker` builds.
        which: index of the image set whose first batch the weights are fitted to.
        schedules: that forecast.

    Yields:
        each with its weights, in order and as soon as it is known; unchanged if the workers gave up.
    """
    tasks = [
        Task(
            f"output weights of {one.name}",
            ("fit", which, one.num_steps, np.packbits(one.recompute).tobytes(), one.output_products),
        )
        for one in schedules
    ]
    found: dict[int, CacheSchedule] = {}
    following = 0
    for place, weights in executor.run(tasks):
        one = schedules[place]
        found[place] = one if isinstance(weights, Failure) else one.replace(output_weights=weights)
        while following in found:
            yield found.pop(following)
            following += 1
