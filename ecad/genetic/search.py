"""The search: asks for candidates, has their images made and scored, tells what they are worth, and forgets nothing.

A study is resumed by searching it again: the same seed asks for the same candidates, and what the study knows of them
is told at once. So an interrupted search ends as an uninterrupted one would have, bit for bit.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import itertools
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

import ecad
from ecad.errors import EcadError
from ecad.genetic.evaluator import Evaluator, evaluate_each, why_given_up
from ecad.genetic.fast import Fast, Ingredients
from ecad.genetic.front import hypervolume, pareto
from ecad.genetic.nsga2 import Nsga2
from ecad.genetic.problem import Problem
from ecad.genetic.steady import Steady
from ecad.genetic.store import Store
from ecad.genetic.study import Candidate, Study, name_of
from ecad.schedules import CacheSchedule
from ecad.schedules.products import read_products, written_products
from ecad.schedules.schedule import Bits

Mode = Literal["paper", "fast"]
# Candidates a generation: the paper's, and few where every generation knows more than the one before.
_POPULATION = {"paper": 72, "fast": 12}


@dataclass(frozen=True)
class Progress:
    """Where a search stands after a candidate.

    Args:
        generation: which it is in, from 0.
        evaluated: candidates so far.
        front_size: those that nothing evaluated so far beats.
        hypervolume: the area they dominate, as in `study.Generation`.
        images: made since the study began.
        seconds: spent since the study began.
        seconds_left: an estimate; None without a limit.
    """

    generation: int
    evaluated: int
    front_size: int
    hypervolume: float
    images: int
    seconds: float
    seconds_left: float | None


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
        store.settle(settings, _versions())
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


@dataclass
class Run:
    """One process's share of a study."""

    problem: Problem
    evaluator: Evaluator
    store: Store
    folder: Path | None
    max_seconds: float | None
    on_progress: Callable[[Progress], None] | None

    def __post_init__(self) -> None:
        self.front_cost, self.front_quality = np.zeros(0, dtype=np.int64), np.zeros(0)
        self.worst_quality = np.inf
        self.evaluated = self.new = 0
        self.before = sum(row.seconds for row in self.store.generations())
        self.began = self.mark = time.monotonic()

    def generations(self, algorithm: Nsga2 | Fast, most: int | None, population_size: int) -> None:
        """Search in generations until there were so many, nothing is left to try, or the time is over."""
        for number in itertools.count() if most is None else range(most):
            later = None if most is None else (most - number - 1) * population_size
            if not self._generation(algorithm, number, later):
                return

    def _generation(self, algorithm: Nsga2 | Fast, number: int, later: int | None) -> bool:
        """Ask for a generation, evaluate what the study does not know of it, tell; False if the search is over.

        `later` is how many candidates will follow it, if that is known.
        """
        bits = algorithm.ask()
        if not len(bits):
            return False
        cost = self.problem.costs(bits)
        quality = self.store.begin(number, bits, cost, algorithm.random_state)
        todo = np.flatnonzero(np.isnan(quality)).tolist()
        self.count(number, cost, quality)
        schedules = [self.problem.schedule(bits[i], name_of(number, i)) for i in todo]
        results = evaluate_each(self.evaluator, schedules, self.store, number)
        for place, i in enumerate(todo, start=1):
            if self.is_late():
                return False
            quality[i] = next(results).mean()
            left = None if later is None else len(todo) - place + later
            self.close(number, i, bits[i], int(cost[i]), float(quality[i]), left)
        if np.isnan(quality).all():
            reason = next(filter(None, (why_given_up(self.evaluator, one, self.store) for one in schedules)), "")
            raise EcadError(f"no candidate of generation {number} could be evaluated; the first: {reason}")
        algorithm.tell(cost, quality)
        return True

    def close(self, generation: int, number: int, bits: Bits, cost: int, quality: float, left: int | None) -> None:
        """Keep what a candidate is worth, NaN if it was given up; `left` is how many are still to come, if known."""
        if not np.isnan(quality):
            plain = self.problem.schedule(bits, name_of(generation, number))
            self._keep(Candidate(generation, number, plain, cost, quality, self.problem.unit))
        self.count(generation, np.array([cost]), np.array([quality]))
        self.new += 1
        self._report(generation, left)

    def _keep(self, candidate: Candidate) -> None:
        # The file first: whatever the store calls complete has one.
        if self.folder is not None:
            candidate.schedule.save(self.folder / candidate.path)
        now = time.monotonic()
        self.store.complete(candidate.generation, candidate.number, candidate.quality, now - self.mark)
        self.mark = now

    def count(self, number: int, cost: np.ndarray, quality: np.ndarray) -> None:
        """Reckon with candidates of a generation, cost (n,) and quality (n,); NaN is not known, or never will be."""
        known = ~np.isnan(quality)
        cost, quality = cost[known], quality[known]
        self.evaluated += len(cost)
        if number == 0:
            self.worst_quality = min(self.worst_quality, quality.min(initial=np.inf))
        cost, quality = np.append(self.front_cost, cost), np.append(self.front_quality, quality)
        front = pareto(cost, quality)
        self.front_cost, self.front_quality = cost[front], quality[front]

    def is_late(self) -> bool:
        """Whether the time for the study is over."""
        return self.max_seconds is not None and self._seconds() >= self.max_seconds

    def _seconds(self) -> float:
        return self.before + time.monotonic() - self.began

    def _report(self, number: int, candidates_left: int | None) -> None:
        if self.on_progress is None:
            return
        area = hypervolume(self.front_cost, self.front_quality, self.problem.uncached_cost, self.worst_quality)
        images = sum(row.images for row in self.store.generations())
        seconds = self._seconds()
        left = []
        if candidates_left is not None:
            left.append((time.monotonic() - self.began) / self.new * candidates_left)
        if self.max_seconds is not None:
            left.append(max(self.max_seconds - seconds, 0.0))
        self.on_progress(
            Progress(number, self.evaluated, len(self.front_cost), area, images, seconds, min(left, default=None))
        )


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


def _versions() -> dict[str, str]:
    """Of all that a result may depend on."""
    packages = {name: importlib.metadata.version(name) for name in ("diffusers", "numpy", "pymoo", "torch")}
    return {"ecad": ecad.__version__, "python": platform.python_version(), **packages}
