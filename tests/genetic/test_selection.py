"""What is exported: by prompts that did not search, fitted where that helps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ecad.errors import EcadError
from ecad.genetic import LocalEvaluator, Problem
from ecad.genetic.search import search
from ecad.genetic.selection import (
    LAST_PROGRAMMED,
    forecasts_whole_steps,
    near_front,
    select_by_validation,
    validation_images,
)
from ecad.genetic.study.study import Candidate
from ecad.prompts import Prompt
from ecad.schedules import heuristics, pixart_sites
from ecad.schedules.plan_key import plan_key

SITES = pixart_sites(2)
PROBLEM = Problem(heuristics.none(SITES, 6), lambda bits, _: bits.sum(axis=(1, 2)), forecast="either")


def no_progress(items, label, *, total):
    return items


def evaluator(quality, prompt="0"):
    """An evaluator whose images are schedules, scored by `quality`."""
    return LocalEvaluator(
        generate=lambda schedule, items: [schedule] * len(items),
        score=lambda images, items: np.array([quality(schedule) for schedule in images]),
        scorer="share",
        prompts=[Prompt(prompt, "a fox")],
        seeds=[0],
        batch_size=1,
    )


def by(judge):
    """A round of validation by one evaluator, which stores nothing."""
    return lambda candidate: (judge, None)


@pytest.fixture
def study():
    return search(PROBLEM, evaluator(lambda schedule: schedule.share_recomputed), generations=4, population_size=8)


def test_near_the_front_are_the_best_at_each_speedup(study):
    found = near_front(study.within_limits(), study.uncached_cost, [1.5, 3])
    for speedup in (1.5, 3):
        affordable = [one for one in study.candidates if one.cost * speedup <= study.uncached_cost]
        best = max(one.quality for one in affordable)
        assert any(one.quality == best and one.cost * speedup <= study.uncached_cost for one in found)
        begun = [one for one in affordable if one.generation <= LAST_PROGRAMMED and forecasts_whole_steps(one.plain)]
        assert not begun or max(begun, key=lambda one: one.quality).name in {one.name for one in found}
    assert len({one.path for one in found}) == len(found) <= 20
    assert [one.cost for one in found] == sorted(one.cost for one in found)


@pytest.mark.parametrize("limit", [1, 3, 20])
def test_a_limit_keeps_the_best_of_evenly_spaced_speedups(study, limit):
    speedups = [1.25, 1.5, 2, 3, 6]
    whole = near_front(study.within_limits(), study.uncached_cost, speedups)
    found = near_front(study.within_limits(), study.uncached_cost, speedups, limit)
    assert len(found) == min(limit, len(whole))
    assert {one.name for one in found} <= {one.name for one in whole}
    [best] = near_front(study.within_limits(), study.uncached_cost, speedups[:1], 1)
    assert best.name in {one.name for one in found}


def test_finalists_that_forecast_whole_steps_are_not_displaced_by_others():
    """Weights are fitted to finalists only, and add much where whole steps are forecast."""

    def quality(schedule):
        return schedule.share_recomputed - 10 * forecasts_whole_steps(schedule)

    study = search(PROBLEM, evaluator(quality), generations=4, population_size=8)
    found = near_front(study.within_limits(), study.uncached_cost, [2])
    best = [one for one in found if forecasts_whole_steps(one.plain)][-1]
    others = [one for one in study.candidates if one.cost <= best.cost and not forecasts_whole_steps(one.plain)]
    assert sum(one.quality > best.quality for one in others) > 2


def test_the_beginning_is_not_displaced_by_what_evolved(study):
    """However good these are by the search's own prompts."""
    known = study.within_limits()
    begun = [one for one in known if one.generation <= LAST_PROGRAMMED and forecasts_whole_steps(one.plain)]
    best = max((one for one in begun if 2 * one.cost <= study.uncached_cost), key=lambda one: one.quality)
    names = [f"lucky_{i}" for i in range(9)]
    lucky = [replace(best, generation=5, quality=9.0, plain=best.plain.replace(name=name)) for name in names]
    assert best.name in {one.name for one in near_front([*known, *lucky], study.uncached_cost, [2])}


def test_validation_prompts_decide_and_nothing_is_dominated(study):
    finalists = near_front(study.within_limits(), study.uncached_cost)
    upside_down = evaluator(lambda schedule: -schedule.share_recomputed, "1")
    kept = select_by_validation(finalists, None, [by(upside_down)], no_progress)
    assert [one.path for one in kept] == [finalists[0].path]
    plain = evaluator(lambda schedule: schedule.share_recomputed, "1")
    same = select_by_validation(finalists, None, [by(plain)], no_progress)
    assert [one.quality for one in same] == sorted({one.quality for one in same})
    assert [one.cost for one in same] == sorted({one.cost for one in same})


@pytest.mark.parametrize("helps", [True, False])
def test_fitted_weights_are_exported_where_the_validation_prompts_say_so(study, helps):
    def fit(candidates):
        for candidate in candidates:
            yield candidate.plain.replace(output_weights=[[0.5]] * candidate.plain.num_steps)

    def quality(schedule):
        return schedule.share_recomputed + (0.001 if helps else -0.001) * (schedule.output_weights is not None)

    finalists = near_front(study.within_limits(), study.uncached_cost)
    kept = select_by_validation(finalists, fit, [by(evaluator(quality, "1"))], no_progress)
    whole = [one for one in kept if forecasts_whole_steps(one.plain)]
    assert {one.plain.output_weights is not None for one in whole} == {helps}
    assert all(one.schedule.output_weights == one.plain.output_weights for one in kept)


def test_weights_are_fitted_though_others_are_better_before(study):
    fitted = []

    def fit(candidates):
        for candidate in candidates:
            fitted.append(candidate.name)
            yield candidate.plain.replace(output_weights=[[0.5]] * candidate.plain.num_steps)

    def quality(schedule):
        gain = 0.0 if not forecasts_whole_steps(schedule) else 2.0 if schedule.output_weights is not None else -2.0
        return schedule.share_recomputed + gain

    finalists = near_front(study.within_limits(), study.uncached_cost)
    kept = select_by_validation(finalists, fit, [by(evaluator(quality, "1"))], no_progress)
    whole = [one for one in finalists if forecasts_whole_steps(one.plain)]
    assert [one.cost for one in kept if one.plain.output_weights is not None] == sorted({one.cost for one in whole})
    leading = [
        one
        for one in whole
        if not any(other.cost <= one.cost and quality(other.plain) > quality(one.plain) for other in whole)
    ]
    assert sorted(fitted) == sorted(one.name for one in leading)


def candidates_of(qualities, cost=lambda number: number + 1):
    """Candidates of rising cost whose images score as `qualities` says: float (candidates, rounds, prompts)."""
    ones = heuristics.none(SITES, 6)

    def schedule(number):
        bits = ones.recompute.copy()
        bits[1:3, :4] = np.unpackbits(np.array([number], np.uint8)).reshape(2, 4)
        return ones.replace(recompute=bits, name=str(number))

    known = [Candidate(0, i, schedule(i), cost(i), 0.0, "MACs") for i in range(len(qualities))]
    assert len({plan_key(one.plain) for one in known}) == len(known)

    def judge(round):
        def score(images, items):
            return np.array(
                [
                    qualities[int(image.name)][round][int(item.prompt.id)]
                    for image, item in zip(images, items, strict=True)
                ]
            )

        prompts = [Prompt(str(i), "a fox") for i in range(len(qualities[0][round]))]
        one = replace(evaluator(None), prompts=prompts, score=score)

        def made(candidate):
            asked.append((round, candidate.plain.name))
            return one, None

        return made

    asked = []
    return known, [judge(round) for round in range(len(qualities[0]))], asked


def test_later_rounds_score_what_is_not_clearly_worse_and_their_means_decide():
    qualities = [
        [[5.0, 5.0, 5.0], [9.0, 9.0, 9.0]],  # cheapest
        [[5.2, 5.5, 4.9], [8.0, 8.0, 8.0]],  # ahead in the first round, behind in the mean
        [[4.0, 4.1, 4.2], [99.0, 99.0, 99.0]],  # clearly worse: not scored again
        [[6.0, 7.0, 8.0], [9.0, 9.5, 9.1]],
    ]
    known, rounds, asked = candidates_of(qualities)
    kept = select_by_validation(known, None, rounds, no_progress)
    assert [one.name for one in asked_in(asked, 1, known)] == [known[i].name for i in (0, 1, 3)]
    assert [one.plain.name for one in kept] == ["0", "3"]
    assert [one.quality for one in kept] == [pytest.approx(np.mean(qualities[i])) for i in (0, 3)]


def test_an_evolved_one_must_be_clearly_better_than_the_beginning():
    qualities = [
        [[5.0, 5.0, 5.0]],  # begun
        [[5.2, 5.5, 4.6]],  # evolved: better, but not clearly
        [[5.2, 5.5, 4.6]],  # begun
        [[7.0, 7.5, 6.9]],  # evolved: clearly better
        [[7.1, 7.6, 6.9]],  # evolved: clearly better than all that are begun
        [[7.4, 7.6, 7.5]],  # begun: more expensive, so it is in the way of none
    ]
    known, rounds, _ = candidates_of(qualities)
    known = [replace(one, generation=LAST_PROGRAMMED + (place in (1, 3, 4))) for place, one in enumerate(known)]
    kept = select_by_validation(known, None, rounds, no_progress)
    assert [one.plain.name for one in kept] == ["0", "2", "3", "4", "5"]


def asked_in(asked, round, known):
    names = {name for when, name in asked if when == round}
    return [one for one in known if one.plain.name in names]


@pytest.mark.parametrize(("most", "later"), [(float("inf"), 2), (3 * 5 + 3 * 5, 2), (3 * 5 + 3 * 5 - 1, 1), (0, 1)])
def test_later_rounds_keep_to_the_number_of_images(most, later):
    """Four candidates and the uncached images in each round, of three prompts."""
    qualities = np.random.default_rng(0).normal(size=(4, 2, 3)) * 0.1 + np.arange(4)[:, None, None]
    known, rounds, asked = candidates_of(qualities.tolist())
    select_by_validation(known, None, rounds, no_progress, most)
    assert len({round for round, _ in asked}) == later


def test_no_more_images_are_made_than_said():
    random = np.random.default_rng(1)
    for prompts, count in ((2, 130), (3, 20), (1, 30)):
        # Noise alone, so that hardly any is clearly worse.
        known, rounds, asked = candidates_of(random.normal(size=(count, 3, prompts)).tolist())
        select_by_validation(known, None, rounds, no_progress)
        assert prompts * (len(asked) + len(rounds)) <= validation_images(count, 0, prompts, len(rounds))


def test_a_round_scores_the_front_and_near_ties_however_many_candidates_there_are():
    """The best at each cost are never left out for others, unless they are clearly worse."""
    random = np.random.default_rng(2)
    truth = np.repeat(np.arange(30.0), 3)
    qualities = truth[:, None, None] + random.normal(size=(90, 3, 8)) * 0.05
    qualities[1::3] -= 5.0
    known, rounds, asked = candidates_of(qualities.tolist(), cost=lambda number: number // 3 + 1)
    kept = select_by_validation(known, None, rounds, no_progress)
    assert not {int(one.plain.name) % 3 for one in asked_in(asked, 1, known)} & {1}
    assert [one.cost for one in kept] == list(range(1, 31))


def test_scores_are_stored_so_that_a_selection_that_was_stopped_resumes(study, tmp_path):
    made = []

    def quality(schedule):
        made.append(schedule.name)
        return schedule.share_recomputed

    finalists = near_front(study.within_limits(), study.uncached_cost)
    judge = evaluator(quality, "1")
    first = select_by_validation(finalists, None, [lambda one: (judge, tmp_path)], no_progress)
    count = len(made)
    again = select_by_validation(finalists, None, [lambda one: (judge, tmp_path)], no_progress)
    assert count
    assert len(made) == count
    assert [one.name for one in again] == [one.name for one in first]


def test_stored_scores_of_another_model_are_not_taken(study, tmp_path):
    """The folder may be left of a study that was deleted."""
    finalists = near_front(study.within_limits(), study.uncached_cost)
    one = replace(evaluator(lambda schedule: schedule.share_recomputed, "1"), settings={"weights": "first"})
    select_by_validation(finalists, None, [lambda candidate: (one, tmp_path)], no_progress)
    other = replace(one, settings={"weights": "second"})
    with pytest.raises(EcadError, match=r'evaluator\.weights: expected "first", found "second"'):
        select_by_validation(finalists, None, [lambda candidate: (other, tmp_path)], no_progress)
