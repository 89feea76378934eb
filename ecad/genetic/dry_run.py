"""What a search will take, before it runs: images, seconds and memory."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ecad.cost.memory import kept_bytes_of_many
from ecad.errors import EcadError
from ecad.genetic.budget import Budget
from ecad.genetic.evaluation.evaluator import Evaluator
from ecad.genetic.evaluation.workers import SearchSetup
from ecad.genetic.problem import Problem
from ecad.genetic.settings import SearchSettings, surrogate_search, with_outputs
from ecad.schedules.schedule import Bits


@dataclass(frozen=True)
class Planned:
    """What one search will take.

    Args:
        first: candidates of its first two generations, about.
        later: candidates of each generation after them.
        candidates: of the whole search, at most; None if only the lack of improvement ends it.
        seconds_per_image: of an uncached image, from one batch.
        kept_bytes: the most that a candidate of the first two generations keeps per image, in 16-bit numbers; None if
            it is not known.
        process_bytes: peak memory of this process so far, or of its GPU; None if it is unknown, as it is of workers.
    """

    first: int
    later: int
    candidates: int | None
    seconds_per_image: float
    kept_bytes: int | None
    process_bytes: int | None


def plan_search(setup: SearchSetup, settings: SearchSettings, budget: Budget) -> Planned:
    """Time two uncached batches, and play the first two generations without making images.

    Args:
        setup: what would be searched.
        settings: of the search.
        budget: when it would end; `max_images` is of this search.

    Raises:
        EcadError: as `search` does of settings, or the model fails to make an image.
    """
    settings.check(setup.problem, budget)
    evaluator = setup.evaluator(0)
    outputs = evaluator.outputs()  # the warm-up
    seconds = _seconds_per_image(evaluator)
    problem = setup.problem
    if problem.forecast != "never" and outputs is not None:
        problem, settings = with_outputs(problem, settings, outputs)
    played = _first_generations(problem, settings, evaluator)
    first, each = sum(map(len, played)), len(evaluator.prompts) * len(evaluator.seeds)
    limits = []
    if budget.generations is not None:
        limits.append(sum(map(len, played[: budget.generations])) + settings.size * max(0, budget.generations - 2))
    if budget.max_images is not None:
        limits.append(budget.max_images // each)
    if budget.max_seconds is not None:
        limits.append(int(budget.max_seconds / (seconds * each)) + 1)
    kept = _kept_bytes(setup, problem, np.concatenate(played))
    process = None if setup.executor is not None else process_bytes()
    return Planned(first, settings.size, min(limits, default=None), seconds, kept, process)


def process_bytes() -> int | None:
    """Peak memory of the GPU if there is one that was used, or else of this process, in bytes; None if unknown."""
    import torch

    if torch.cuda.is_available() and (peak := torch.cuda.max_memory_reserved()):
        return int(peak)
    try:
        import resource
    except ImportError:  # Windows has no such module
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _seconds_per_image(evaluator: Evaluator) -> float:
    began = time.monotonic()
    evaluator.outputs()
    return (time.monotonic() - began) / min(evaluator.batch_size, len(evaluator.prompts) * len(evaluator.seeds))


def _first_generations(problem: Problem, settings: SearchSettings, evaluator: Evaluator) -> Sequence[Bits]:
    """What the search asks for first; later candidates depend on qualities, the first ones hardly."""
    if settings.mode == "paper":
        from ecad.genetic.algorithms.nsga2 import Nsga2

        return [Nsga2(problem, settings.size, settings.seed, settings.initial).ask()] * 2
    algorithm = surrogate_search(problem, settings, evaluator)
    played = [algorithm.ask()]
    algorithm.tell(problem.costs(played[0]), 30 + played[0].mean(axis=(1, 2)))
    return [*played, algorithm.ask()]


def _kept_bytes(setup: SearchSetup, problem: Problem, bits: Bits) -> int | None:
    schedules = [problem.schedule(one, "planned") for one in bits]
    most = 0
    for forecast in (False, True):
        tables = [one.recompute for one in schedules if one.forecast == forecast]
        if not tables:
            continue
        try:
            kept = kept_bytes_of_many(np.array(tables), problem.template.sites, setup.architecture, forecast)
        except EcadError:
            return None
        most = max(most, int(kept.max()))
    return most
