"""The settings of a search: which candidates it asks for."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from typing import Literal, get_args

import numpy as np

from ecad.calibration.step_choice import Outputs
from ecad.errors import EcadError
from ecad.genetic.algorithms.surrogate_search import Ingredients, SurrogateSearch
from ecad.genetic.algorithms.whole_steps import steps_by_law
from ecad.genetic.budget import Budget
from ecad.genetic.evaluation.evaluator import REFERENCE_STEPS, Evaluator
from ecad.genetic.problem import Problem
from ecad.schedules.schedule import Bits

Mode = Literal["paper", "fast"]
# Candidates per generation: the paper's; fewer where each generation learns from the one before.
POPULATION = {"paper": 72, "fast": 12}


@dataclass(frozen=True, eq=False)
class SearchSettings:
    """What decides, with the evaluator's scores, which candidates a search asks for.

    Args:
        initial: bool (n, steps, sites), candidates of generation 0.
        mode, population_size, seed, max_cost, min_quality, ingredients, asynchronous: as for `search`; a
            `population_size` of None is the mode's own.
    """

    initial: Bits
    mode: Mode
    population_size: int | None
    seed: int
    max_cost: float | None
    min_quality: float | None
    ingredients: Ingredients
    asynchronous: bool

    @property
    def size(self) -> int:
        """Candidates per generation."""
        return POPULATION.get(self.mode, 0) if self.population_size is None else self.population_size

    def check(self, problem: Problem, budget: Budget) -> None:
        """Raise EcadError if a value is out of range or the mode does not support it."""
        if self.mode not in get_args(Mode):
            raise EcadError(f"`mode` {self.mode!r} is unknown: expected {' or '.join(get_args(Mode))}")
        least = (
            ("steps", problem.shape[0], 2),
            ("generations", budget.generations, 1),
            ("population_size", self.size, 2),
            ("max_seconds", budget.max_seconds, 0),
            ("max_images", budget.max_images, 1),
            ("patience", budget.patience, 1),
            ("max_cost", self.max_cost, problem.cheapest_cost),
        )
        for name, found, minimum in least:
            if found is not None and not found >= minimum:
                raise EcadError(f"`{name}`: expected at least {minimum}, found {found}")
        if self.asynchronous and budget.patience is not None:
            raise EcadError("`patience` counts generations: leave it out of an asynchronous search")
        if self.mode == "fast":
            return
        if self.asynchronous:
            raise EcadError(f"`mode` {self.mode} works in generations: use `mode` fast for an asynchronous search")
        if any(limit is not None for limit in (self.max_cost, self.min_quality, problem.reusable)):
            raise EcadError(f"`mode` {self.mode} takes no limit on cost, quality or memory: use `mode` fast")

    def to_json(self, problem: Problem, evaluator: Evaluator) -> dict[str, object]:
        """What a study keeps of its search: JSON values, which a resumed search must have, too."""
        settings: dict[str, object] = {
            "mode": self.mode,
            "population_size": self.size,
            "seed": self.seed,
            "max_cost": self.max_cost,
            "min_quality": self.min_quality,
            "initial": hashlib.sha256(self.initial.tobytes()).hexdigest()[:16] if len(self.initial) else None,
            **problem.settings,
            "scorer": evaluator.scorer,
            "prompts": [[prompt.id, prompt.text] for prompt in evaluator.prompts],
            "seeds": [int(seed) for seed in evaluator.seeds],
            "batch_size": evaluator.batch_size,
            "evaluator": dict(evaluator.settings),
        }
        if self.mode == "fast":
            settings["ingredients"] = asdict(self.ingredients)
        if self.asynchronous:
            settings["asynchronous"] = True
        return settings


def with_outputs(problem: Problem, settings: SearchSettings, outputs: Outputs) -> tuple[Problem, SearchSettings]:
    """Extrapolate by what is known of the model's outputs, and begin mode `fast` with a calibration's schedules.

    Args:
        problem: whose schedules may extrapolate.
        settings: of the search.
        outputs: of the model.
    """
    template = problem.template
    config = {**template.config, **outputs.levels}
    known = replace(problem, template=template.replace(output_products=outputs.products, config=config))
    if settings.mode != "fast" or not settings.ingredients.programming:
        return known, settings
    laws = known.plans(steps_by_law(known, outputs.coefficients))
    most = known.uncached_cost if settings.max_cost is None else settings.max_cost
    affordable = laws[known.costs(laws) <= most]
    return known, replace(settings, initial=np.concatenate([settings.initial, affordable]))


def surrogate_search(problem: Problem, settings: SearchSettings, evaluator: Evaluator) -> SurrogateSearch:
    """The algorithm of mode `fast`.

    Args:
        problem: the schedules and their costs.
        settings: of the search.
        evaluator: what its scores are.
    """
    return SurrogateSearch(
        problem,
        settings.size,
        settings.seed,
        settings.initial,
        evaluator.decibels,
        settings.max_cost,
        -np.inf if settings.min_quality is None else settings.min_quality,
        settings.ingredients,
        REFERENCE_STEPS in evaluator.settings,
    )
