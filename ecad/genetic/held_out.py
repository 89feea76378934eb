"""How a front fares on prompts and seeds that the search never saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ecad.genetic.study import Candidate
from ecad.quality import mean_interval


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
