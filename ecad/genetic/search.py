"""The search: asks an algorithm for candidates, has their images made and scored, and stores everything in a study.

A study is resumed by searching it again. The same seed asks for the same candidates, and stored scores are reused. So
an interrupted search ends as an uninterrupted one does, bit for bit.

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

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ecad.calibration.step_choice import Outputs
from ecad.genetic.algorithms.surrogate_search import Ingredients
from ecad.genetic.asynchronous import AsynchronousSearch
from ecad.genetic.budget import Budget
from ecad.genetic.evaluation.evaluator import Evaluator
from ecad.genetic.problem import Problem
from ecad.genetic.run import Progress, Run
from ecad.genetic.settings import Mode, SearchSettings, surrogate_search, with_outputs
from ecad.genetic.study.store import Store
from ecad.genetic.study.study import Study
from ecad.schedules import CacheSchedule
from ecad.schedules.output_products import read_products, written_products
from ecad.utils.versions import versions

# Packages whose release may change what a search asks for or finds.
_PACKAGES = ("diffusers", "numpy", "pymoo", "torch")


def search(
    problem: Problem,
    evaluator: Evaluator,
    folder: str | os.PathLike[str] | None = None,
    *,
    mode: Mode = "fast",
    generations: int | None = None,
    max_seconds: float | None = None,
    max_images: int | None = None,
    patience: int | None = None,
    population_size: int | None = None,
    seed: int = 0,
    initial: Sequence[CacheSchedule] = (),
    max_cost: float | None = None,
    min_quality: float | None = None,
    ingredients: Ingredients | None = None,
    asynchronous: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Study:
    """Search for schedules that are cheap and good, or resume the search of a study.

    Args:
        problem: the schedules and their costs.
        evaluator: makes and scores images.
        folder: of the study: `study.sqlite`, and each candidate as `gen_NNN/candidates/cand_NNN.json`. None keeps the
            study in memory.
        mode: "paper", the search as released (arXiv 2506.15682), or "fast".
        generations: of the whole study, the initial one included; None sets no limit.
        max_seconds: limit for the whole study, checked after each candidate; None sets no limit.
        max_images: limit on the images of candidates, over the whole study; None sets no limit.
        patience: end after this number of generations in a row that did not improve the front; None sets no limit.
        population_size: candidates per generation, at least 2; None means 72 in mode `paper`, 12 in mode `fast`.
        seed: random seed of the search.
        initial: candidates of generation 0, to which the mode adds its own.
        max_cost, min_quality: limits that mode `fast` keeps to; the front has nothing beyond them.
        ingredients: parts of mode `fast` that are used; None means all.
        asynchronous: mode `fast` asks for the next candidates before the last ones are known, so that no worker is
            idle; the study then depends on the workers' speed.
        on_progress: called after each new candidate.

    Returns:
        the study. It can be resumed after KeyboardInterrupt or an error.

    Raises:
        EcadError: an argument is out of range, the study has other settings, another process searches it, or it is
            damaged or cannot be written.
        ScheduleError: an initial schedule is of another model or number of steps.
    """
    start = np.array([problem.bits(one) for one in initial], dtype=bool).reshape(-1, *problem.shape)
    parts = ingredients or Ingredients()
    settings = SearchSettings(start, mode, population_size, seed, max_cost, min_quality, parts, asynchronous)
    budget = Budget(generations, max_seconds, max_images, patience)
    settings.check(problem, budget)
    path, store = None if folder is None else Path(folder), Store.open(folder)
    try:
        _run(problem, evaluator, store, path, settings, budget, on_progress)
    finally:
        if path is not None:
            store.close()
    return Study(store) if path is None else Study.open(path)


def _run(
    problem: Problem,
    evaluator: Evaluator,
    store: Store,
    folder: Path | None,
    settings: SearchSettings,
    budget: Budget,
    on_progress: Callable[[Progress], None] | None,
) -> None:
    kept = settings.to_json(problem, evaluator)
    if problem.forecast != "never" and (outputs := _outputs(evaluator, store, problem.shape[0])) is not None:
        kept["output_products"] = written_products(outputs.products)
        kept |= {"step_coefficients": list(outputs.coefficients)} if outputs.coefficients else {}
        kept |= {"noise_levels": dict(outputs.levels)} if outputs.levels else {}
        problem, settings = with_outputs(problem, settings, outputs)
    store.ensure_settings(kept, versions(_PACKAGES))
    store.ensure_scorer(evaluator.scorer, evaluator.settings)
    run = Run(problem, evaluator, store, folder, budget, on_progress)
    if settings.mode == "paper":
        from ecad.genetic.algorithms.nsga2 import Nsga2  # pymoo takes a second to import

        nsga2 = Nsga2(problem, settings.size, settings.seed, settings.initial)
        run.generations(nsga2, settings.size)
        return
    algorithm = surrogate_search(problem, settings, evaluator)
    if settings.asynchronous:
        AsynchronousSearch(run, algorithm, settings.seed, budget.generations, settings.size).search()
    else:
        run.generations(algorithm, settings.size)


def _outputs(evaluator: Evaluator, store: Store, steps: int) -> Outputs | None:
    """A resumed study keeps its own; one that began without any continues without."""
    kept = store.settings()
    if not kept:
        return evaluator.outputs()
    products = read_products(kept.get("output_products"), steps)
    if products is None:
        return None
    return Outputs(products, kept.get("step_coefficients", ()), kept.get("noise_levels", {}))
