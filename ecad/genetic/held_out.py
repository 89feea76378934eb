"""How a front fares on prompts and seeds that the search never saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ecad.genetic.evaluation.evaluator import Evaluator, evaluate_each
from ecad.genetic.study.store import Store
from ecad.genetic.study.study import Candidate
from ecad.quality import mean_interval
from ecad.schedules.provenance import Interval


@dataclass(frozen=True)
class HeldOut:
    """A candidate of a front, scored again.

    Args:
        candidate: as the search left it.
        quality: mean score of the new images; `low` and `high` are its 95% interval.
        beaten_by: the name of a cheaper schedule of the front that is better here, beyond doubt; None if there is none.
    """

    candidate: Candidate
    quality: float
    low: float
    high: float
    beaten_by: str | None


def rescore(front: Sequence[Candidate], scores: np.ndarray, prompts: np.ndarray) -> list[HeldOut]:
    """Hold a front against new scores of it.

    Two schedules are compared image by image, so that hard prompts and easy ones do not blur the difference.

    Args:
        front: cheapest first.
        scores: float (candidates, images), of the same images for every candidate.
        prompts: int (images,), which prompt each is of: images of one prompt are not independent.

    Returns:
        one entry a candidate.
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


def judge(evaluator: Evaluator, front: Sequence[Candidate], folder: Path, bar: Any) -> list[HeldOut]:
    """The front's scores on held-out images, but for schedules whose images were given up.

    Args:
        evaluator: makes and scores these images.
        front: cheapest first.
        folder: of the study, which keeps the scores.
        bar: draws progress: (items, label, total=...) -> items.
    """
    with Store.open(folder) as store:
        scores = evaluate_each(evaluator, [candidate.schedule for candidate in front], store)
        found = np.array(list(bar(scores, f"held-out prompts, {evaluator.scorer}", total=len(front))))
    known = np.isfinite(found).all(axis=1)
    kept = [candidate for candidate, is_known in zip(front, known, strict=True) if is_known]
    prompts = np.repeat(np.arange(len(evaluator.prompts)), len(evaluator.seeds))
    return rescore(kept, found[known], prompts)


def scores_of(candidate: Candidate, judged: Mapping[str, Sequence[HeldOut]]) -> dict[str, Interval]:
    """Scorer -> held-out score of one candidate of those that `judge` judged."""
    return {
        name: Interval(entry.quality, entry.low, entry.high)
        for name, entries in judged.items()
        for entry in entries
        if entry.candidate.path == candidate.path
    }
