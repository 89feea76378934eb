"""Selects what a study exports: candidates near its front, with output weights fitted, by validation prompts.

The search picks candidates by its own prompts, so those of its front are partly lucky there. Prompts that picked none
of them decide which are exported. Held-out prompts, which decide nothing, tell how good these are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ecad.genetic.evaluation.evaluator import Evaluator, evaluate
from ecad.genetic.held_out import ProgressBar
from ecad.genetic.study.study import Candidate, Study
from ecad.schedules import CacheSchedule
from ecad.utils.pareto import pareto

# Of 20 steps: every number of computed steps from 14 to 3, and 16.
SPEEDUPS = (1.25, 1.4, 1.5, 1.6, 1.75, 2, 2.2, 2.5, 2.75, 3, 3.5, 4, 5, 6)
# Per speed-up; the second best on a few prompts is often the best on others.
_FINALISTS = 2
_ROUNDING = 1e-9


def near_front(study: Study, speedups: Sequence[float] = SPEEDUPS) -> list[Candidate]:
    """The best candidates, by the search's prompts, at or below the cost of each speed-up, cheapest first."""
    found: dict[str, Candidate] = {}
    best_first = sorted(study.within_limits(), key=lambda candidate: -candidate.quality)
    for speedup in speedups:
        most = study.uncached_cost / speedup * (1 + _ROUNDING)
        affordable = [candidate for candidate in best_first if candidate.cost <= most]
        found |= {str(candidate.path): candidate for candidate in affordable[:_FINALISTS]}
    return sorted(found.values(), key=lambda candidate: candidate.cost)


def select_by_validation(
    finalists: Sequence[Candidate],
    fit: Callable[[CacheSchedule], CacheSchedule] | None,
    validation: Evaluator,
    progress: ProgressBar,
) -> list[Candidate]:
    """Select candidates by their scores on validation prompts.

    Args:
        finalists: what may be selected.
        fit: gives a schedule fitted output weights; whether these help is for the validation prompts to say. None fits
            none.
        validation: makes and scores these prompts' images.
        progress: draws progress.

    Returns:
        the non-dominated ones, cheapest first, with their mean validation score as quality.

    Raises:
        EcadError: an image cannot be made.
    """
    entries = list(finalists)
    if fit is not None:
        forecasting = [one for one in finalists if one.plain.forecast]
        for one in progress(forecasting, "fitting output weights", total=len(forecasting)):
            entries.append(replace(one, plain=fit(one.plain)))
    drawn = progress(entries, f"validation prompts, {validation.scorer}", total=len(entries))
    quality = np.array([evaluate(validation, [one.plain])[0].mean() for one in drawn])
    kept = pareto(np.array([one.cost for one in entries]), quality)
    return [replace(entries[i], quality=float(quality[i])) for i in kept]
