"""Sets up a search: its problem, and evaluators that make images in this process or on workers.

On workers a task is one batch of images under one schedule, which travels as bits; each worker loads the model and
encodes the prompts once. The batches are those that one process would make, so the scores are the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache, partial
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
from ecad.genetic.evaluation.model_settings import ModelSettings, ProblemSettings
from ecad.genetic.evaluation.pool import ImageSet, PooledEvaluator, fitted_on
from ecad.genetic.evaluation.problems import latency_problem, problem_for, problem_of
from ecad.genetic.genes import unpack
from ecad.genetic.problem import Problem
from ecad.genetic.study.items import all_items
from ecad.genetic.study.layout import TIMES, study_folder
from ecad.image_generators import ImageGenerator, found_everywhere, get_image_generator
from ecad.image_generators.provenance import provenance_for
from ecad.prompts import Prompt
from ecad.schedules import CacheSchedule
from ecad.schedules.output_weights import OutputWeights
from ecad.schedules.provenance import Provenance


@dataclass(frozen=True)
class SearchSetup:
    """What a search of an image generator at one number of steps needs.

    Args:
        steps: that number.
        problem: the schedules and their costs.
        architecture: of the generator.
        evaluator: index of an image set -> its evaluator; prompts are encoded when it is first used.
        provenance: of the schedules that are found.
        executor: of the workers; None if images are made in this process.
        fit: gives schedules that forecast output weights, fitted to images of the search, in their order; None if no
            schedule may forecast or keep more.
    """

    steps: int
    problem: Problem
    architecture: Architecture
    evaluator: Callable[[int], Evaluator]
    provenance: Provenance
    executor: Executor | None
    fit: Callable[[Sequence[CacheSchedule]], Iterable[CacheSchedule]] | None = None


# See `worker`.
_Batch = tuple[int, int, bytes, bool, np.ndarray | None, OutputWeights | None, int]
_Fit = tuple[str, int, int, bytes, np.ndarray | None]


@contextmanager
def search_setup(
    workers: WorkerSettings, folder: Path, images: Sequence[ImageSet], model: ModelSettings, wanted: ProblemSettings
) -> Iterator[list[SearchSetup]]:
    """Load an image generator, or start workers that do, until the end of the context.

    Args:
        workers: which workers; a single local one is this process.
        folder: of the study; `failures.log` and measured times are written there.
        images: the image sets that evaluators are wanted for.
        model: the image generator.
        wanted: the kind of problem.

    Yields:
        one setup per number of steps, in the order of `wanted`.

    Raises:
        EcadError: the model cannot be loaded, the workers cannot be started, or time is to be measured on workers.
    """
    if workers.in_process:
        yield _setups_here(folder, images, model, wanted)
        return
    if wanted.timed:
        raise EcadError("a search by latency measures time in this process: use one local worker, or search by MACs")
    sets = [[[[prompt.id, prompt.text] for prompt in one.prompts], list(one.seeds), one.quality] for one in images]
    options = {
        "image_generator": found_everywhere(model.image_generator),
        "weights": shared_path(model.weights),
        "device": model.device,
        "batch_size": model.batch_size,
        "images": [[*one, steps] for steps in wanted.steps or (None,) for one in sets],
        "reference_steps": wanted.reference_steps,
    }
    with workers.open("ecad.genetic.evaluation.workers:worker", options, folder) as executor:
        yield [
            _setup_on(executor, one, range(place * len(images), (place + 1) * len(images)), images, model, wanted)
            for place, one in enumerate(executor.facts["generators"])
        ]


def _setup_on(
    executor: Executor,
    facts: dict[str, Any],
    places: Sequence[int],
    images: Sequence[ImageSet],
    model: ModelSettings,
    wanted: ProblemSettings,
) -> SearchSetup:
    """What workers told of one number of steps; `places` are its image sets among theirs."""
    architecture = Architecture(**facts["architecture"])
    return SearchSetup(
        facts["steps"],
        wanted.apply(problem_for(architecture, facts["rows"], facts["guidance_scale"]), architecture),
        architecture,
        cache(lambda which: PooledEvaluator(executor, places[which], images[which], model.batch_size)),
        Provenance(**facts["provenance"]),
        executor,
        partial(fitted_on, executor, places[0]) if wanted.may_fit else None,
    )


def _setups_here(
    folder: Path, images: Sequence[ImageSet], model: ModelSettings, wanted: ProblemSettings
) -> list[SearchSetup]:
    generator = get_image_generator(model.image_generator, model.weights, device=model.device)
    steps = wanted.steps or (generator.steps,)
    return [
        _setup_here(study_folder(folder, steps, one), images, model, wanted, generator.at_steps(one)) for one in steps
    ]


def _setup_here(
    folder: Path, images: Sequence[ImageSet], model: ModelSettings, wanted: ProblemSettings, generator: ImageGenerator
) -> SearchSetup:
    if wanted.timed:
        problem = latency_problem(generator, images[0].prompts[: model.batch_size], folder / TIMES)
    else:
        problem = problem_of(generator)

    @cache
    def evaluator(which: int) -> LocalEvaluator:
        chosen = images[which]
        return evaluator_of(
            generator, chosen.prompts, chosen.seeds, chosen.quality, model.batch_size, wanted.reference_steps
        )

    fit = None
    if wanted.may_fit:
        fit = partial(map, _fitter(generator, images[0].prompts, images[0].seeds, model.batch_size))
    applied, origin = wanted.apply(problem, generator.architecture), provenance_for(generator)
    return SearchSetup(generator.steps, applied, generator.architecture, evaluator, origin, None, fit)


def _fitter(
    generator: ImageGenerator, prompts: Sequence[Prompt], seeds: Sequence[int], batch_size: int
) -> Callable[[CacheSchedule], CacheSchedule]:
    """Fits output weights to the first batch of images."""
    items = all_items(prompts, seeds)[:batch_size]
    return weights_fitter(generator, [item.prompt.text for item in items], [item.seed for item in items])


def worker(
    image_generator: str,
    weights: str | None,
    device: str,
    batch_size: int,
    images: Sequence[tuple[Sequence[tuple[str, str]], Sequence[int], str, int | None]],
    reference_steps: int | None,
) -> WorkerJob:
    """Load a generator and scorers, in a worker.

    A task is (index of `images`, steps, packed bits, whether the schedule extrapolates, its output products and output
    weights, index of the first image); ("fit", index of `images`, steps, packed bits, output products), which asks for
    output weights; or ("outputs" or "settings", index of `images`), which asks for these.
    """
    generator = get_image_generator(image_generator, weights, device=device)
    template = problem_of(generator).template

    def parts(which: int) -> tuple[ImageGenerator, list[Prompt], Sequence[int], str]:
        texts, seeds, quality, steps = images[which]
        return generator.at_steps(steps), [Prompt(*prompt) for prompt in texts], seeds, quality

    @cache
    def evaluator(which: int) -> LocalEvaluator:
        return evaluator_of(*parts(which), batch_size, reference_steps)

    @cache
    def fitter(which: int) -> Callable[[CacheSchedule], CacheSchedule]:
        return _fitter(*parts(which)[:3], batch_size)

    def sent(steps: int, packed: bytes, forecast: bool, **others: Any) -> CacheSchedule:
        recompute = unpack(packed, (steps, len(template.sites)))
        return template.replace(recompute=recompute, forecast=forecast, **others)

    def work(task: tuple[str, int] | _Fit | _Batch) -> object:
        if len(task) == 2:
            what, place = task
            return evaluator(place).outputs() if what == "outputs" else dict(evaluator(place).settings)
        if len(task) == 5:
            _, which, steps, packed, products = task
            return fitter(which)(sent(steps, packed, True, output_products=products)).output_weights
        which, steps, packed, forecast, products, output_weights, first = task
        schedule = sent(steps, packed, forecast, output_products=products, output_weights=output_weights)
        own = evaluator(which)
        items = all_items(own.prompts, own.seeds)[first : first + batch_size]
        scores = own.score(own.generate(schedule, items), items)
        return check_scores(scores, schedule, items, own.scorer)

    numbers = dict.fromkeys(steps for *_, steps in images)
    facts: dict[str, object] = {
        "generators": [_facts_of(generator.at_steps(steps)) for steps in numbers],
        "settings": dict(evaluator(0).settings),
    }
    return WorkerJob(work, facts)


def _facts_of(generator: ImageGenerator) -> dict[str, Any]:
    """What `_setup_on` reads."""
    architecture = asdict(generator.architecture)
    return {
        "steps": generator.steps,
        "architecture": architecture | {"transformer": dict(architecture["transformer"])},
        "rows": generator.rows(),
        "guidance_scale": generator.guidance_scale,
        "provenance": provenance_for(generator).to_json(),
    }
