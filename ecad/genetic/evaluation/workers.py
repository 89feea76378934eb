"""Sets up a search: its problem, and evaluators that make images in this process or on workers.

On workers a task is one batch of images under one schedule, which travels as bits; each worker loads the model and
encodes the prompts once. The batches are those that one process would make, so the scores are the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ecad.calibration.of_generator import weights_fitter
from ecad.cost.architectures import Architecture
from ecad.errors import EcadError
from ecad.execution import Executor
from ecad.execution import Job as WorkerJob
from ecad.execution.pool import WorkerSettings, shared_path
from ecad.genetic.evaluation.evaluator import Evaluator, LocalEvaluator, check_scores
from ecad.genetic.evaluation.image_evaluator import evaluator_of
from ecad.genetic.evaluation.pool import ImageSet, PooledEvaluator
from ecad.genetic.evaluation.problems import latency_problem, problem_for, problem_of, within_memory
from ecad.genetic.genes import Forecast, unpack
from ecad.genetic.problem import Problem
from ecad.genetic.study.items import all_items
from ecad.genetic.study.layout import TIMES
from ecad.image_generators import found_everywhere, get_image_generator
from ecad.image_generators.provenance import provenance_for
from ecad.prompts import Prompt
from ecad.schedules import CacheSchedule
from ecad.schedules.output_weights import OutputWeights
from ecad.schedules.provenance import Provenance


@dataclass(frozen=True)
class ModelSettings:
    """The model to search.

    Args:
        image_generator, weights, device: as for `get_image_generator`.
        batch_size: images per batch.
    """

    image_generator: str
    weights: str | None = None
    device: str = "auto"
    batch_size: int = 8


@dataclass(frozen=True)
class ProblemSettings:
    """The problem to search.

    Args:
        timed: whether the cost is time, measured in this process, instead of MACs.
        forecast: whether schedules extrapolate: "never", "always" or "either".
        max_cached_bytes: the most that a schedule may keep per image; None sets no limit.
    """

    timed: bool = False
    forecast: Forecast = "never"
    max_cached_bytes: int | None = None

    def apply(self, problem: Problem, architecture: Architecture) -> Problem:
        """A problem with these forecasts and this memory limit."""
        return within_memory(replace(problem, forecast=self.forecast), architecture, self.max_cached_bytes)


@dataclass(frozen=True)
class SearchSetup:
    """What a search of an image generator needs.

    Args:
        problem: the schedules and their costs.
        evaluator: index of an image set -> its evaluator; prompts are encoded when it is first used.
        provenance: of the schedules that are found.
        executor: of the workers; None if images are made in this process.
        fit: gives a schedule that forecasts output weights, fitted to images of the search; None on workers, or if no
            schedule may forecast or keep more.
    """

    problem: Problem
    evaluator: Callable[[int], Evaluator]
    provenance: Provenance
    executor: Executor | None
    fit: Callable[[CacheSchedule], CacheSchedule] | None = None


# See `worker`.
_Batch = tuple[int, int, bytes, bool, np.ndarray | None, OutputWeights | None, int]


@contextmanager
def search_setup(
    workers: WorkerSettings, folder: Path, images: Sequence[ImageSet], model: ModelSettings, wanted: ProblemSettings
) -> Iterator[SearchSetup]:
    """Load an image generator, or start workers that do, until the end of the context.

    Args:
        workers: which workers; a single local one is this process.
        folder: of the study; `failures.log` and measured times are written there.
        images: the image sets that evaluators are wanted for.
        model: the image generator.
        wanted: the kind of problem.

    Raises:
        EcadError: the model cannot be loaded, the workers cannot be started, or time is to be measured on workers.
    """
    if workers.in_process:
        yield _setup_here(folder, images, model, wanted)
        return
    if wanted.timed:
        raise EcadError("a search by latency measures time in this process: use one local worker, or search by MACs")
    sets = [[[[prompt.id, prompt.text] for prompt in one.prompts], list(one.seeds), one.quality] for one in images]
    options = {
        "image_generator": found_everywhere(model.image_generator),
        "weights": shared_path(model.weights),
        "device": model.device,
        "batch_size": model.batch_size,
        "images": sets,
    }
    with workers.open("ecad.genetic.evaluation.workers:worker", options, folder) as executor:
        facts = executor.facts
        architecture = Architecture(**facts["architecture"])
        yield SearchSetup(
            wanted.apply(problem_for(architecture, facts["rows"], facts["guidance_scale"]), architecture),
            lambda which: PooledEvaluator(executor, which, images[which], model.batch_size),
            Provenance(**facts["provenance"]),
            executor,
        )


def _setup_here(folder: Path, images: Sequence[ImageSet], model: ModelSettings, wanted: ProblemSettings) -> SearchSetup:
    generator = get_image_generator(model.image_generator, model.weights, device=model.device)
    if wanted.timed:
        problem = latency_problem(generator, images[0].prompts[: model.batch_size], folder / TIMES)
    else:
        problem = problem_of(generator)

    def evaluator(which: int) -> LocalEvaluator:
        chosen = images[which]
        return evaluator_of(generator, chosen.prompts, chosen.seeds, chosen.quality, model.batch_size)

    fit = None
    if wanted.forecast != "never" and wanted.max_cached_bytes is None:
        items = all_items(images[0].prompts, images[0].seeds)[: model.batch_size]
        fit = weights_fitter(generator, [item.prompt.text for item in items], [item.seed for item in items])
    return SearchSetup(wanted.apply(problem, generator.architecture), evaluator, provenance_for(generator), None, fit)


def worker(
    image_generator: str,
    weights: str | None,
    device: str,
    batch_size: int,
    images: Sequence[tuple[Sequence[tuple[str, str]], Sequence[int], str]],
) -> WorkerJob:
    """Load a generator and scorers, in a worker.

    A task is (index of `images`, steps, packed bits, whether the schedule extrapolates, its output products and output
    weights, index of the first image); or an index of `images` alone, which asks for the output products.
    """
    generator = get_image_generator(image_generator, weights, device=device)
    template = problem_of(generator).template

    @cache
    def evaluator(which: int) -> LocalEvaluator:
        prompts, seeds, quality = images[which]
        return evaluator_of(generator, [Prompt(*prompt) for prompt in prompts], seeds, quality, batch_size)

    def work(task: int | _Batch) -> np.ndarray | None:
        if isinstance(task, int):
            return evaluator(task).output_products()
        which, steps, packed, forecast, products, output_weights, first = task
        recompute = unpack(packed, (steps, len(template.sites)))
        schedule = template.replace(
            recompute=recompute, forecast=forecast, output_products=products, output_weights=output_weights
        )
        own = evaluator(which)
        items = all_items(own.prompts, own.seeds)[first : first + batch_size]
        scores = own.score(own.generate(schedule, items), items)
        return check_scores(scores, schedule, items, own.scorer)

    architecture = asdict(generator.architecture)
    facts: dict[str, Any] = {
        "architecture": architecture | {"transformer": dict(architecture["transformer"])},
        "rows": generator.rows(),
        "guidance_scale": generator.guidance_scale,
        "provenance": provenance_for(generator).to_json(),
        "settings": dict(evaluator(0).settings),
    }
    return WorkerJob(work, facts)
