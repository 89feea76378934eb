"""What a search's probes say: how much an image changes if one step, or one component in it, is not computed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ecad.errors import EcadError
from ecad.genetic.algorithms import whole_steps
from ecad.genetic.evaluation.evaluator import Evaluator, evaluate_each
from ecad.genetic.genes import SearchSpace
from ecad.genetic.study.store import Store
from ecad.genetic.study.study import Study
from ecad.schedules import CacheSchedule
from ecad.utils.files import write_atomic

WHOLE = "whole step"


@dataclass(frozen=True)
class Probes:
    """The quality of images in which one thing is not computed.

    Args:
        scorer: of the quality, larger is better.
        images: number of images that each value is a mean of.
        quality: "whole step" or a component, in all blocks -> quality if only this is reused (or extrapolated), and
            only at step 1, 2, ...; None where it was not scored.
    """

    scorer: str
    images: int
    quality: Mapping[str, tuple[float | None, ...]]

    @property
    def num_steps(self) -> int:
        """Number of steps that can be probed: all but the first, which always computes."""
        return len(self.quality[WHOLE])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a JSON file, atomically."""
        quality = {name: list(values) for name, values in self.quality.items()}
        document = {"format": "ecad probes 1", "scorer": self.scorer, "images": self.images, "quality": quality}
        write_atomic(path, json.dumps(document, indent=1) + "\n")


def probe_schedules(space: SearchSpace) -> dict[str, list[CacheSchedule]]:
    """The schedules that are probed: as `Probes.quality`, with a schedule for each value.

    Components that are not apart from the whole step (a denoiser as one site) have no row.
    """
    found = {WHOLE: list(whole_steps.probes(space))}
    components = space.template.components
    for component in components if len(components) > 1 else ():
        bits = np.array(found[WHOLE])
        others = np.array([name != component for _, name in space.template.sites])
        bits[:, 1:, others] = True
        found[component] = list(space.plans(bits))
    return {
        name: [space.schedule(one, f"{name} at step {i}") for i, one in enumerate(bits, 1)]
        for name, bits in found.items()
    }


def read_probes(study: Study) -> Probes:
    """What a study has scored of them.

    Raises:
        EcadError: it has not probed its steps: its search does not begin with probes, or has not got there.
    """
    quality = {
        name: tuple(_mean(study, schedule) for schedule in schedules)
        for name, schedules in probe_schedules(study.space).items()
    }
    scored = {name: values for name, values in quality.items() if any(value is not None for value in values)}
    # Some candidates of any search are probes, too.
    if 2 * sum(value is not None for value in quality[WHOLE]) <= len(quality[WHOLE]):
        raise EcadError(
            "the study has not probed its steps, with which only some searches begin: let `components` be probed, too, "
            "which makes the images"
        )
    return Probes(study.settings["scorer"], len(study.items), scored)


def make_probes(
    study: Study, evaluator: Evaluator, folder: Path, progress: Callable[[Iterable[Any], int], Iterable[Any]]
) -> None:
    """Score what is missing of all probes, and store it in the study.

    Args:
        study: whose steps and components.
        evaluator: of the study's own images.
        folder: of the study.
        progress: draws progress: (items, how many) -> items.

    Raises:
        EcadError: another process writes the study, or its scores are of another scorer.
    """
    schedules = [schedule for one in probe_schedules(study.space).values() for schedule in one]
    with Store.open(folder) as store:
        store.ensure_scorer(evaluator.scorer, evaluator.settings)
        for _ in progress(evaluate_each(evaluator, schedules, store), len(schedules)):
            pass


def _mean(study: Study, schedule: CacheSchedule) -> float | None:
    scores = study.search_scores(schedule)
    return None if np.isnan(scores).any() else float(scores.mean())
