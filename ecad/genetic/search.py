"""The search: asks for candidates, has their images made and scored, tells what they are worth, and forgets nothing.

A study is resumed by searching it again: the same seed asks for the same candidates, and what the study knows of them
is told at once. So an interrupted search ends as an uninterrupted one would have, bit for bit.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from ecad.errors import EcadError
from ecad.genetic.algorithms.nsga2 import Nsga2
from ecad.genetic.algorithms.surrogate_search import Fast, Ingredients
from ecad.genetic.asynchronous import Steady
from ecad.genetic.evaluation.evaluator import Evaluator
from ecad.genetic.problem import Problem
from ecad.genetic.run import Progress, Run
from ecad.genetic.study.store import Store
from ecad.genetic.study.study import Study
from ecad.schedules import CacheSchedule
from ecad.schedules.output_products import read_products, written_products
from ecad.utils.versions import versions

Mode = Literal["paper", "fast"]
# Releases of these may change what a search asks for or finds.
_PACKAGES = ("diffusers", "numpy", "pymoo", "torch")
# Candidates a generation: the paper's, and few where every generation knows more than the one before.
_POPULATION = {"paper": 72, "fast": 12}


def search(
    problem: Problem,
    evaluator: Evaluator,
    folder: str | os.PathLike[str] | None = None,
    *,
    mode: Mode = "fast",
    generations: int | None = None,
    max_seconds: float | None = None,
    population_size: int | None = None,
    seed: int = 0,
    initial: Sequence[CacheSchedule] = (),
    max_cost: float | None = None,
    min_quality: float | None = None,
    ingredients: Ingredients | None = None,
    asynchronous: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Study:
    """Search for schedules that are cheap and good; go on where an earlier search of the study stopped.

    Args:
        problem: whose schedules, and what they cost.
        evaluator: makes and scores images.
        folder: of the study: `study.sqlite`, and each candidate as `gen_NNN/candidates/cand_NNN.json`. None keeps the
            study in memory.
        mode: "paper", the search as released (arXiv 2506.15682), or "fast".
        generations: of the whole study, the initial one included; None sets no limit.
        max_seconds: spent on the whole study; stops after the candidate in which they run out. None sets no limit.
        population_size: candidates a generation, at least 2; by default the paper's 72, or 12 in mode `fast`.
        seed: of all random choices.
        initial: candidates of generation 0, to which the mode adds its own.
        max_cost, min_quality: mode `fast` spends nothing on what costs more or is worse, and the front has none of it.
        ingredients: of mode `fast`, all by default.
        asynchronous: mode `fast` asks for the next candidates without waiting for the last ones, so that no worker of
            the evaluator is idle; the study depends on who is how fast then.
        on_progress: called after each new candidate.

    Returns:
        the study. KeyboardInterrupt and errors leave it ready to go on.

    Raises:
        EcadError: an argument is out of range, the study has other settings, another process searches it, or it is
            damaged or cannot be written.
        ScheduleError: an initial schedule is of another model or number of steps.

    >>> from ecad.genetic import LocalEvaluator
    >>> from ecad.prompts import Prompt
    >>> from ecad.schedules import heuristics, pixart_sites
    >>> problem = Problem(heuristics.none(pixart_sites(2), 4), lambda bits, _: bits.sum(axis=(1, 2)))
    >>> evaluator = LocalEvaluator(
    ...     generate=lambda schedule, items: [schedule.share_recomputed] * len(items),
    ...     score=lambda images, items: np.array(images),
    ...     scorer="share", prompts=[Prompt("0", "a fox")], seeds=[0, 1], batch_size=2)
    >>> study = search(problem, evaluator, generations=3, population_size=8)
    >>> [generation.images for generation in study.history]
    [8, 24, 40]
    >>> study.front()[0].cost
    6
    """
    if population_size is None:
        population_size = _POPULATION.get(mode, 0)
    if asynchronous and mode != "fast":
        raise EcadError(f"mode {mode} works in generations: expected mode fast for an asynchronous search")
    _check(problem, mode, generations, max_seconds, population_size, max_cost, min_quality)
    bits = [problem.bits(schedule) for schedule in initial]
    start = np.array(bits, dtype=bool).reshape(-1, *problem.shape)
    settings: dict[str, Any] = {
        "mode": mode,
        "population_size": population_size,
        "seed": seed,
        "max_cost": max_cost,
        "min_quality": min_quality,
        "initial": hashlib.sha256(start.tobytes()).hexdigest()[:16] if bits else None,
        **problem.settings,
        **_settings_of(evaluator),
    }
    made_of = ingredients or Ingredients()
    if mode == "fast":
        settings["ingredients"] = asdict(made_of)
    if asynchronous:
        settings["asynchronous"] = True
    store = Store.open(folder)
    try:
        if problem.forecast != "never" and (rows := _output_products(evaluator, store)) is not None:
            settings["output_products"] = rows
            products = read_products(rows, problem.shape[0])
            problem = replace(problem, template=problem.template.replace(output_products=products))
        store.settle(settings, versions(_PACKAGES))
        algorithm: Nsga2 | Fast
        if mode == "paper":
            algorithm = Nsga2(problem, population_size, seed, start)
        else:
            floor = -np.inf if min_quality is None else min_quality
            algorithm = Fast(problem, population_size, seed, start, evaluator.decibels, max_cost, floor, made_of)
        path = None if folder is None else Path(folder)
        run = Run(problem, evaluator, store, path, max_seconds, on_progress)
        if asynchronous and isinstance(algorithm, Fast):
            Steady(run, algorithm, seed, generations, population_size).search()
        else:
            run.generations(algorithm, generations, population_size)
    finally:
        if folder is not None:
            store.close()
    return Study(store) if folder is None else Study.open(folder)


def _check(
    problem: Problem,
    mode: str,
    generations: int | None,
    max_seconds: float | None,
    population_size: int,
    max_cost: float | None,
    min_quality: float | None,
) -> None:
    if mode not in get_args(Mode):
        raise EcadError(f"mode {mode!r} is unknown: expected {' or '.join(get_args(Mode))}")
    least = (
        ("steps", problem.shape[0], 2),
        ("generations", generations, 1),
        ("population_size", population_size, 2),
        ("max_seconds", max_seconds, 0),
        ("max_cost", max_cost, int(problem.costs(problem.plans(np.zeros((1, *problem.shape), dtype=bool)))[0])),
    )
    for name, found, minimum in least:
        if found is not None and not found >= minimum:
            raise EcadError(f"{name}: expected at least {minimum}, found {found}")
    limits = max_cost, min_quality, problem.reusable
    if mode == "paper" and any(limit is not None for limit in limits):
        raise EcadError("mode paper takes no limit on cost, quality or memory: expected none, found one; use mode fast")


def _settings_of(evaluator: Evaluator) -> dict[str, Any]:
    return {
        "scorer": evaluator.scorer,
        "prompts": [[prompt.id, prompt.text] for prompt in evaluator.prompts],
        "seeds": [int(seed) for seed in evaluator.seeds],
        "batch_size": evaluator.batch_size,
        "evaluator": dict(evaluator.settings),
    }


def _output_products(evaluator: Evaluator, store: Store) -> list[list[float]] | None:
    """As JSON values. A study that goes on forecasts as it did; one from before they were known goes on without."""
    if settings := store.settings():
        rows: list[list[float]] | None = settings.get("output_products")
        return rows
    products = evaluator.output_products()
    return None if products is None else written_products(products)
