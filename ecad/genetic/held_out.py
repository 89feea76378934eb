"""Scores a front again on prompts and seeds that the search did not use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from ecad.genetic.evaluation.evaluator import Evaluator, evaluate_each
from ecad.genetic.study.store import Store
from ecad.genetic.study.study import Candidate
from ecad.quality import mean_interval
from ecad.schedules.provenance import Interval

T = TypeVar("T")


class ProgressBar(Protocol):
    """Iterates over items with a progress bar; `utils.console.bar` is one."""

    def __call__(self, items: Iterable[T], label: str, *, total: int) -> Iterable[T]: ...


@dataclass(frozen=True)
class HeldOut:
    """The held-out score of a candidate.

    Args:
        candidate: of the front.
        quality: mean score of the held-out images; `low` and `high` are its 95% confidence interval.
        dominated_by: the name of a cheaper schedule of the front whose held-out score is higher, statistically
            significantly (95%); None if there is none.
    """

    candidate: Candidate
    quality: float
    low: float
    high: float
    dominated_by: str | None


def compare(front: Sequence[Candidate], scores: np.ndarray, prompts: np.ndarray) -> list[HeldOut]:
    """Compare the candidates of a front by held-out scores.

    Two schedules are compared image by image (a paired test), because scores differ more by prompt than by schedule.

    Args:
        front: cheapest first.
        scores: float (candidates, images), of the same images for every candidate.
        prompts: int (images,), the prompt of each image: images of one prompt are not independent.

    Returns:
        one entry per candidate.
    """
    found = []
    for place, (candidate, own) in enumerate(zip(front, scores, strict=True)):
        better = (
            cheaper.schedule.name
            for cheaper, others in zip(front[:place], scores, strict=False)
            if mean_interval(others - own, prompts)[0] > 0
        )
        found.append(HeldOut(candidate, float(own.mean()), *mean_interval(own, prompts), next(better, None)))
    return found


def score_held_out(
    front: Sequence[Candidate], judge: Callable[[Candidate], tuple[Evaluator, Path]], progress: ProgressBar
) -> list[HeldOut]:
    """Score a front on held-out images.

    Args:
        front: cheapest first.
        judge: what makes and scores a candidate's held-out images, the same ones for all, and the folder of its study,
            which stores the scores.
        progress: draws progress.

    Returns:
        one entry per candidate, without those whose images were given up.

    Raises:
        EcadError: a study has held-out scores by other weights of the scorer.
    """
    judged = [(candidate, *judge(candidate)) for candidate in front]
    found: dict[str, np.ndarray] = {}
    for folder in dict.fromkeys(place for *_, place in judged):
        own = [(candidate, evaluator) for candidate, evaluator, place in judged if place == folder]
        evaluator = own[0][1]
        with Store.open(folder) as store:
            store.ensure_scorer(evaluator.scorer, evaluator.settings)
            scores = evaluate_each(evaluator, [candidate.schedule for candidate, _ in own], store)
            drawn = progress(scores, f"held-out prompts, {evaluator.scorer}", total=len(own))
            found |= {candidate.name: row for (candidate, _), row in zip(own, drawn, strict=True)}
    kept = [candidate for candidate in front if np.isfinite(found[candidate.name]).all()]
    evaluator = judged[0][1]
    prompts = np.repeat(np.arange(len(evaluator.prompts)), len(evaluator.seeds))
    return compare(kept, np.array([found[candidate.name] for candidate in kept]), prompts)


def held_out_intervals(candidate: Candidate, scored: Mapping[str, Sequence[HeldOut]]) -> dict[str, Interval]:
    """Scorer -> held-out score of a candidate; `scored` is scorer -> what `score_held_out` returned."""
    return {
        name: Interval(entry.quality, entry.low, entry.high)
        for name, entries in scored.items()
        for entry in entries
        if entry.candidate.name == candidate.name
    }
