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
from ecad.genetic.study.study import Candidate
from ecad.schedules import CacheSchedule
from ecad.utils.pareto import pareto

# Of 20 steps: every number of computed steps from 14 to 3, and 16.
SPEEDUPS = (1.25, 1.4, 1.5, 1.6, 1.75, 2, 2.2, 2.5, 2.75, 3, 3.5, 4, 5, 6)
# Per speed-up; the second best on a few prompts is often the best on others.
_FINALISTS = 2
# Per speed-up, of the beginning's that forecast whole steps; as a rule these are all: by both laws, by probes with and
# without output products, and every n-th step. Which one is best with output weights is not known before.
_BEGUN = 6
# The last generation of a search's beginning: no evolved candidate takes the place of one that is not.
LAST_PROGRAMMED = 1
_ROUNDING = 1e-9


def near_front(
    candidates: Sequence[Candidate],
    uncached_cost: int,
    speedups: Sequence[float] = SPEEDUPS,
    limit: int | None = None,
) -> list[Candidate]:
    """The best candidates, by the search's prompts, at or below the cost of each speed-up.

    Args:
        candidates: to choose from, of one search or of several numbers of steps.
        uncached_cost: of an image without reuse.
        speedups: whose best are taken, of all and of those of the search's beginning that forecast whole steps; with a
            limit, evenly spaced ones, the first and the last among them.
        limit: the most that are taken; None for all.

    Returns:
        cheapest first.
    """
    best_first = sorted(candidates, key=lambda candidate: -candidate.quality)
    ranked: list[list[Candidate]] = []
    for speedup in speedups:
        most = uncached_cost / speedup * (1 + _ROUNDING)
        affordable = [candidate for candidate in best_first if candidate.cost <= most]
        begun = [candidate for candidate in affordable if candidate.generation <= LAST_PROGRAMMED]
        whole = [candidate for candidate in begun if forecasts_whole_steps(candidate.plain)]
        ranked.append([*whole[:1], *affordable[:_FINALISTS], *whole[1:_BEGUN]])
    if limit is not None and limit < len(ranked):
        ranked = [ranked[place] for place in np.unique(np.linspace(0, len(ranked) - 1, limit).round().astype(int))]
    by_rank = [found[rank] for rank in range(_BEGUN + _FINALISTS) for found in ranked if len(found) > rank]
    found = list({candidate.name: candidate for candidate in by_rank}.values())[:limit]
    return sorted(found, key=lambda candidate: candidate.cost)


def most_finalists(limit: int | None = None) -> int:
    """The most candidates that `near_front` gives, with its own speed-ups and one more."""
    most = (_BEGUN + _FINALISTS) * (len(SPEEDUPS) + 1)
    return most if limit is None else min(limit, most)


def forecasts_whole_steps(schedule: CacheSchedule) -> bool:
    """Whether each step computes everything or is forecast."""
    computed = schedule.recompute.sum(axis=1)
    return schedule.forecast and bool(np.isin(computed, (0, len(schedule.sites))).all())


def select_by_validation(
    finalists: Sequence[Candidate],
    fit: Callable[[Candidate], CacheSchedule] | None,
    validation: Callable[[Candidate], Evaluator],
    progress: ProgressBar,
) -> list[Candidate]:
    """Select candidates by their scores on validation prompts.

    Those that forecast whole steps, and that no other such one dominates there, get fitted output weights, too. Whether
    these help is for the validation prompts to say.

    Args:
        finalists: what may be selected.
        fit: gives a candidate's schedule fitted output weights. None fits none.
        validation: what makes and scores a candidate's images of these prompts, the same ones for all.
        progress: draws progress.

    Returns:
        the non-dominated ones, cheapest first, with their mean validation score as quality.

    Raises:
        EcadError: an image cannot be made.
    """
    entries = _validated(finalists, validation, progress)
    if fit is not None:
        best = _non_dominated([one for one in entries if forecasts_whole_steps(one.plain)])
        drawn = progress(best, "fitting output weights", total=len(best))
        entries += _validated([replace(one, plain=fit(one)) for one in drawn], validation, progress)
    return _non_dominated(entries)


def _validated(
    candidates: Sequence[Candidate], validation: Callable[[Candidate], Evaluator], progress: ProgressBar
) -> list[Candidate]:
    scorer = validation(candidates[0]).scorer if candidates else ""
    drawn = progress(candidates, f"validation prompts, {scorer}", total=len(candidates))
    return [replace(one, quality=float(evaluate(validation(one), [one.plain])[0].mean())) for one in drawn]


def _non_dominated(candidates: Sequence[Candidate]) -> list[Candidate]:
    cost, quality = np.array([one.cost for one in candidates]), np.array([one.quality for one in candidates])
    return [candidates[i] for i in pareto(cost, quality)]
