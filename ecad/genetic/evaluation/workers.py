"""Making and scoring the images of candidates on many workers, each with a model and a scorer of its own.

A task is one batch of images under one schedule and travels as bits; the prompts are encoded once by each worker. The
batches are those that one process would make, so the scores are the same to the last bit.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from ecad.cost.architectures import Architecture
from ecad.errors import EcadError
from ecad.execution import Executor
from ecad.execution import Job as WorkerJob
from ecad.execution.pool import Spread, everywhere
from ecad.genetic.evaluation.evaluator import Evaluator, LocalEvaluator, checked
from ecad.genetic.evaluation.image_evaluator import evaluator_of
from ecad.genetic.evaluation.pool import Images, PooledEvaluator
from ecad.genetic.evaluation.problems import latency_problem, problem_for, problem_of, within_memory
from ecad.genetic.genes import Forecast
from ecad.genetic.problem import Problem
from ecad.genetic.study.items import all_items
from ecad.genetic.study.layout import TIMES
from ecad.image_generators import found_everywhere, get_image_generator
from ecad.image_generators.provenance import provenance_for
from ecad.prompts import Prompt
from ecad.schedules.provenance import Provenance


@contextmanager
def evaluators(
    spread: Spread,
    folder: Path,
    images: Sequence[Images],
    *,
    image_generator: str,
    weights: str | os.PathLike[str] | None = None,
    device: str = "auto",
    batch_size: int = 8,
    timed: bool = False,
    forecast: Forecast = "never",
    max_cached_bytes: int | None = None,
) -> Iterator[tuple[Problem, Callable[[int], Evaluator], Provenance, Executor | None]]:
    """The problem of an image generator, an evaluator for each of some sets of images by its place, what its schedules
    are made for, and the workers.

    Args:
        spread: over which workers; in this process if there is one only.
        folder: `failures.log` goes into it.
        images: the sets; prompts are encoded when a set is first used.
        image_generator, weights, device: which model.
        batch_size: images made at once; also what a worker is given at once.
        timed: price schedules in time, measured in this process, instead of MACs.
        forecast: whether schedules do: "never", "always" or "either".
        max_cached_bytes: that a schedule may keep of one image.

    Raises:
        EcadError: the model or the workers cannot be had.
    """
    options: dict[str, Any] = {"weights": everywhere(weights), "device": device}
    options["image_generator"] = found_everywhere(image_generator)
    if spread.in_process:
        generator = get_image_generator(image_generator, weights, device=device)
        make = partial(evaluator_of, generator, batch_size=batch_size)
        origin = provenance_for(generator)
        problem = problem_of(generator)
        if timed:
            problem = latency_problem(generator, images[0].prompts[:batch_size], folder / TIMES)
        problem = replace(problem, forecast=forecast)
        problem = within_memory(problem, generator.architecture, max_cached_bytes)
        yield problem, lambda i: make(images[i].prompts, images[i].seeds, images[i].quality), origin, None
        return
    if timed:
        raise EcadError("time is measured in this process: expected one local worker, found more; or search by MACs")
    known = [[[[prompt.id, prompt.text] for prompt in one.prompts], list(one.seeds), one.quality] for one in images]
    options.update(batch_size=batch_size, images=known)
    with spread.open("ecad.genetic.evaluation.workers:worker", options, folder) as executor:
        facts = executor.facts
        architecture = Architecture(**facts["architecture"])
        problem = problem_for(architecture, facts["rows"], facts["guidance_scale"])
        problem = replace(problem, forecast=forecast)
        problem = within_memory(problem, architecture, max_cached_bytes)
        origin = Provenance(**facts["provenance"])
        yield problem, lambda which: PooledEvaluator(executor, which, images[which], batch_size), origin, executor


def worker(
    image_generator: str,
    weights: str | None,
    device: str,
    batch_size: int,
    images: Sequence[tuple[Sequence[tuple[str, str]], Sequence[int], str]],
) -> WorkerJob:
    """Load a generator and a scorer.

    A task is (which of `images`, steps, packed bits, whether the schedule forecasts, its output products, place of the
    first image); or which of `images` alone, for the products themselves.
    """
    generator = get_image_generator(image_generator, weights, device=device)
    template = problem_of(generator).template
    num_sites = len(template.sites)

    @cache
    def evaluator(which: int) -> LocalEvaluator:
        prompts, seeds, quality = images[which]
        return evaluator_of(generator, [Prompt(*prompt) for prompt in prompts], seeds, quality, batch_size)

    def work(task: int | tuple[int, int, bytes, bool, np.ndarray | None, int]) -> np.ndarray | None:
        if isinstance(task, int):
            return evaluator(task).output_products()
        which, steps, packed, forecast, products, first = task
        bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=steps * num_sites).astype(bool)
        recompute = bits.reshape(steps, num_sites)
        schedule = template.replace(recompute=recompute, forecast=forecast, output_products=products)
        own = evaluator(which)
        items = all_items(own.prompts, own.seeds)[first : first + batch_size]
        scores = own.score(own.generate(schedule, items), items)
        return checked(scores, schedule, items, own.scorer)

    own = evaluator(0)
    architecture = asdict(generator.architecture)
    return WorkerJob(
        work,
        {
            "architecture": architecture | {"transformer": dict(architecture["transformer"])},
            "rows": generator.rows(),
            "guidance_scale": generator.guidance_scale,
            "provenance": provenance_for(generator).to_json(),
            "settings": dict(own.settings),
        },
    )
