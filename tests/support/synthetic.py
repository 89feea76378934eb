"""A search problem without a model: scores that are cheap, but not additive, and differ from image to image."""

from __future__ import annotations

import sqlite3
import zlib
from pathlib import Path

import numpy as np

from ecad.calibration.step_choice import Outputs
from ecad.genetic import LocalEvaluator, Problem
from ecad.prompts import Prompt
from ecad.schedules import CacheSchedule, Sites, heuristics, pixart_sites
from ecad.schedules.plan import executed
from ecad.sites.readers import readers
from ecad.utils.pareto import pareto

SITES = pixart_sites(2)
# A sampler's, of five steps.
COEFFICIENTS = (0.1, 0.3, 0.2, 0.1, 0.3)


def problem(steps: int = 5, sites: Sites = SITES) -> Problem:
    """Every site has a price of its own, so that many costs are possible."""
    prices = 1000 + 7 ** np.arange(1, len(sites) + 1) % 1009
    producers = readers(sites)
    template = heuristics.none(sites, steps).replace(config={"height": 64})
    return Problem(
        template, lambda bits, _: (executed(bits, producers).sum(axis=-2) * prices).sum(axis=-1) + 50 * steps
    )


def quality(plans: np.ndarray) -> np.ndarray:
    """Minus the error of each plan, bool (..., steps, sites): outputs age, and stale neighbours spoil a fresh one."""
    steps, sites = plans.shape[-2:]
    age, error = np.zeros((*plans.shape[:-2], sites)), np.zeros(plans.shape[:-2])
    weights = np.random.default_rng(5).uniform(0.2, 1.0, size=(steps, sites))
    for step in range(steps):
        age = np.where(plans[..., step, :], 0.15 * np.roll(age, 1, axis=-1) * (age > 0), age + 1)
        error = error + (weights[step] * age**1.5).sum(axis=-1)
    return -error


def evaluator(
    num_prompts: int = 2, seeds: tuple[int, ...] = (0, 1, 2), batch_size: int = 4, **changes
) -> LocalEvaluator:
    """`changes` replace fields; `generate` passes on what `score` needs."""

    def generate(schedule: CacheSchedule, items) -> list[float]:
        plan = executed(schedule.recompute, readers(schedule.sites))
        worth = quality(plan) + 0.25 * schedule.forecast
        if schedule.output_products is not None:
            worth += 0.01 * schedule.output_products[0, 1]
        return [float(worth) * _taste(item) for item in items]

    def outputs_of(items) -> Outputs:
        outputs = np.random.default_rng(len(items)).normal(size=(5, 8))
        return Outputs(outputs @ outputs.T, COEFFICIENTS, {})

    fields = {
        "generate": generate,
        "score": lambda images, items: np.array(images),
        "scorer": "synthetic",
        "outputs_of": outputs_of,
        "prompts": [Prompt(f"{i}", f"prompt {i}") for i in range(num_prompts)],
        "seeds": seeds,
        "batch_size": batch_size,
    }
    return LocalEvaluator(**{**fields, **changes})


def run(search, model: Problem, generations: int) -> list[np.ndarray]:
    """Every generation's bits."""
    asked = []
    for _ in range(generations):
        asked.append(search.ask())
        if not len(asked[-1]):
            break
        search.tell(model.costs(asked[-1]), quality(model.plans(asked[-1])))
    return asked


def every_plan(model: Problem) -> np.ndarray:
    """All schedules that cache anything, bool (n, steps, sites)."""
    steps, sites = model.shape
    free = (steps - 1) * sites
    bits = np.ones((2**free - 1, steps, sites), dtype=bool)  # the last one would be no caching
    bits[:, 1:] = ((np.arange(2**free - 1)[:, None] >> np.arange(free)) & 1).reshape(-1, steps - 1, sites)
    return bits


def front(model: Problem, bits: np.ndarray) -> list[tuple[int, float]]:
    """Every cost and quality that none of these beats."""
    cost, worth = model.costs(bits), quality(model.plans(bits))
    return [(int(cost[i]), float(worth[i])) for i in pareto(cost, worth)]


def _taste(item) -> float:
    return 1 + zlib.crc32(f"{item.prompt.id} {item.seed}".encode()) / 2**32


def content(folder: Path) -> dict[str, object]:
    """All that must not depend on interruptions: every table but for the clock, and every candidate's file."""
    database = sqlite3.connect(folder / "study.sqlite")
    queries = {
        "settings": "SELECT * FROM settings ORDER BY name",
        "generations": "SELECT number, random_state, images FROM generations ORDER BY number",
        "candidates": "SELECT * FROM candidates ORDER BY generation, number",
        "scores": "SELECT bits, prompt_id, prompt, seed, scorer, score FROM scores JOIN plans ON plan = plans.id"
        " JOIN items ON item = items.id ORDER BY 1, 2, 3, 4, 5",
    }
    tables = {name: database.execute(query).fetchall() for name, query in queries.items()}
    database.close()
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.json")}
    return {**tables, "files": files}
