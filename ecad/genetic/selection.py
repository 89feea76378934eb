"""Selects what a study exports: candidates near its front, with output weights fitted, by validation prompts.

The search picks candidates by its own prompts, so those of its front are partly lucky there. Prompts that picked none
of them decide which are exported, in rounds: those that are not clearly worse than a cheaper one are scored again with
other noise (successive halving: Jamieson and Talwalkar, arXiv:1502.07943). Held-out prompts, which decide nothing, tell
how good these are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ecad.errors import EcadError
from ecad.genetic.evaluation.evaluator import Evaluator, evaluate_each, failure_reason
from ecad.genetic.held_out import ProgressBar
from ecad.genetic.study.store import Store
from ecad.genetic.study.study import Candidate
from ecad.schedules import CacheSchedule
from ecad.utils.pareto import pareto

# Of 20 steps: every number of computed steps from 14 to 3, and 16.
SPEEDUPS = (1.25, 1.4, 1.5, 1.6, 1.75, 2, 2.2, 2.5, 2.75, 3, 3.5, 4, 5, 6)
# Per speed-up; the fourth best on a few prompts may be the best on others.
_FINALISTS = 4
# Per speed-up, of the beginning's that forecast whole steps; as a rule these are all: by both laws, by probes with and
# without output products, and every n-th step. Which one is best with output weights is not known before.
_BEGUN = 6
# The last generation of a search's beginning: no evolved candidate takes the place of one that is not.
LAST_PROGRAMMED = 1
# The rounds of the validation prompts, each with other noise.
ROUNDS = 3
# A candidate is clearly worse than another if its mean is so many standard errors of their paired difference below.
_CLEARLY = 1.0
# A later round scores half of the candidates of the one before, or so many; fewer, if others are clearly worse.
_LEAST = 48
_ROUNDING = 1e-9
# Makes and scores a candidate's images of the validation prompts, the same ones for all, and the folder that stores the
# scores, if they are to be stored.
Judge = Callable[[Candidate], tuple[Evaluator, Path | None]]
Fit = Callable[[Sequence[Candidate]], Iterable[CacheSchedule]]


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
        half = _FINALISTS // 2
        ranked.append([*whole[:1], *affordable[:half], *whole[1:_BEGUN], *affordable[half:_FINALISTS]])
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
    fit: Fit | None,
    rounds: Sequence[Judge],
    progress: ProgressBar,
    max_images: float = float("inf"),
) -> list[Candidate]:
    """Select candidates by their scores on validation prompts.

    All are scored in the first round. Those that forecast whole steps, and are not clearly worse than another such one,
    get fitted output weights and are scored once more; whether the weights help is for the validation prompts to say.
    Every later round scores those that are not clearly worse than a cheaper one.

    An evolved candidate is selected only if it is clearly better than all of the beginning that are no more expensive:
    of many candidates that the search's prompts found best, some are a little better on the validation prompts by luck.

    Args:
        finalists: what may be selected.
        fit: gives candidates' schedules fitted output weights, in their order. None fits none.
        rounds: the judge of each round.
        progress: draws progress.
        max_images: no later round begins for which these would not suffice; images of fits are not counted.

    Returns:
        the non-dominated ones, cheapest first, with their mean validation score as quality.

    Raises:
        EcadError: an image cannot be made.
    """
    if not finalists:
        return []
    known = list(finalists)
    scores = _scored(known, rounds[0], progress)
    whole = [place for place, one in enumerate(known) if forecasts_whole_steps(one.plain)]
    if fit is not None and whole:
        chosen = [known[whole[place]] for place in _leading(_costs(known)[whole], scores[whole], most=_LEAST)]
        weighted = progress(fit(chosen), "fitting output weights", total=len(chosen))
        fitted = [replace(one, plain=schedule) for one, schedule in zip(chosen, weighted, strict=True)]
        known, scores = known + fitted, np.concatenate([scores, _scored(fitted, rounds[0], progress)])
    images = scores.size + scores.shape[-1]
    for judge in rounds[1:]:
        kept = _leading(_costs(known), scores, most=max(len(known) // 2, _LEAST))
        again = (1 + len(kept)) * scores.shape[-1]
        if len(kept) < 2 or images + again > max_images:
            break
        images += again
        known, scores = [known[place] for place in kept], scores[kept]
        scores = np.concatenate([scores, _scored(known, judge, progress)], axis=1)
    evolved = np.array([one.generation > LAST_PROGRAMMED for one in known])
    trusted = np.flatnonzero(~evolved | _clearly_ahead(_costs(known), scores, ~evolved))
    known, quality = [known[place] for place in trusted], scores[trusted].mean(axis=(1, 2))
    return [replace(known[place], quality=float(quality[place])) for place in pareto(_costs(known), quality)]


def validation_images(finalists: int, fits: int, prompts: int, rounds: int) -> int:
    """The most images that `select_by_validation` makes.

    Args:
        finalists: how many may be selected.
        fits: how many of them are fitted.
        prompts: of the validation.
        rounds: of the validation.

    >>> validation_images(60, 20, prompts=8, rounds=3)
    1432
    """
    known, found = finalists + fits, 1 + finalists + fits
    for _ in range(1, rounds):
        known = min(known, max(known // 2, _LEAST))
        found += 1 + known
    return prompts * found


def most_fits(finalists: int) -> int:
    """The most finalists that get fitted output weights."""
    return min(finalists, _LEAST)


def _scored(candidates: Sequence[Candidate], judge: Judge, progress: ProgressBar) -> np.ndarray:
    """Score candidates in one round: float64 (candidates, 1, prompts)."""
    judged = [(one, *judge(one)) for one in candidates]
    label = f"validation prompts, {judged[0][1].scorer}"
    found = dict(progress(_each_scored(judged), label, total=len(judged)))
    return np.array([[found[place]] for place in range(len(judged))])


def _each_scored(judged: Sequence[tuple[Candidate, Evaluator, Path | None]]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each candidate's place and its score by prompt; all candidates of a study are given to its workers."""
    for folder in dict.fromkeys(folder for *_, folder in judged):
        places = [place for place, (*_, own) in enumerate(judged) if own == folder]
        schedules, evaluator = [judged[place][0].plain for place in places], judged[places[0]][1]
        with Store.open(folder) as store:
            store.ensure_settings({"batch_size": evaluator.batch_size, "evaluator": dict(evaluator.settings)}, {})
            found = evaluate_each(evaluator, schedules, store)
            for place, schedule, scores in zip(places, schedules, found, strict=True):
                if np.isnan(scores).any():
                    reason = failure_reason(evaluator, schedule, store)
                    raise EcadError(f"{evaluator.scorer} of schedule {schedule.name!r}: given up: {reason}")
                yield place, scores.reshape(len(evaluator.prompts), -1).mean(axis=1)


def _leading(cost: np.ndarray, scores: np.ndarray, most: int) -> np.ndarray:
    """The places of those that are not clearly worse than one that is no more expensive; of more, the least worse.

    Args:
        cost: (candidates,).
        scores: float (candidates, rounds, prompts).
        most: how many places at most.

    Returns:
        int (places,), ascending.
    """
    behind = _behind(scores)
    behind[cost[None] > cost[:, None]] = -np.inf
    worst = behind.max(axis=1, initial=-np.inf)
    kept = np.flatnonzero(worst <= _CLEARLY)
    return np.sort(kept[np.argsort(worst[kept], kind="stable")][:most])


def _clearly_ahead(cost: np.ndarray, scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether each is clearly better than all `others`, bool (candidates,), that are no more expensive; bool alike."""
    ahead = _behind(scores)[others]
    ahead[cost[others][:, None] > cost[None]] = np.inf
    return np.asarray(ahead.min(axis=0, initial=np.inf) > _CLEARLY)


def _behind(scores: np.ndarray) -> np.ndarray:
    """How far each (row) is behind each other one (column), in standard errors: float (candidates, candidates)."""
    # Noise of one prompt is not independent of its other noise, so the spread is that between prompts.
    by_prompt = scores.mean(axis=1)
    ahead = by_prompt[None] - by_prompt[:, None]
    mean, prompts = ahead.mean(axis=-1), max(scores.shape[-1], 1)
    error = ahead.std(axis=-1, ddof=1) / np.sqrt(prompts) if prompts > 1 else np.zeros_like(mean)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.nan_to_num(mean / error, nan=0.0))


def _costs(candidates: Sequence[Candidate]) -> np.ndarray:
    return np.array([one.cost for one in candidates], dtype=np.int64)
