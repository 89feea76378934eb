from __future__ import annotations

import numpy as np
import pytest
from synthetic import SITES, evaluator, problem

from ecad.errors import EcadError
from ecad.genetic import Item, Store, evaluate
from ecad.prompts import Prompt
from ecad.schedules import CacheSchedule, flux_sites, heuristics

EVERY_2, EVERY_3 = (heuristics.every_n(SITES, 5, n) for n in (2, 3))


class Counting:
    """An evaluator's `generate` that remembers what it made."""

    def __init__(self, **changes):
        self.made = []
        plain = evaluator(**changes)
        self.evaluator = evaluator(**changes, generate=lambda *job: self.made.append(job) or plain.generate(*job))


def test_scores_of_one_prompt_stand_side_by_side():
    scored = evaluator(
        generate=lambda schedule, items: items,
        score=lambda images, items: np.array([10 * int(item.prompt.id) + item.seed for item in images]),
    )
    assert evaluate(scored, [EVERY_2, EVERY_3]).tolist() == [[0, 1, 2, 10, 11, 12]] * 2


def test_batches_are_always_the_same_whatever_is_known():
    counting = Counting(batch_size=4)
    items = [Item(prompt, seed) for prompt in counting.evaluator.prompts for seed in counting.evaluator.seeds]
    with Store.open(None) as store:
        whole = evaluate(counting.evaluator, [EVERY_2, EVERY_3], store)
        batches = [made for _, made in counting.made]
        assert batches == [tuple(items[:4]), tuple(items[4:])] * 2
        assert np.array_equal(evaluate(counting.evaluator, [EVERY_3, EVERY_2], store), whole[::-1])
        assert len(counting.made) == 4
    with Store.open(None) as store:
        store.add_scores(store_key(EVERY_2), items[4:], "synthetic", whole[0, 4:])
        counting.made.clear()
        assert np.array_equal(evaluate(counting.evaluator, [EVERY_2], store), whole[:1])
        assert [made for _, made in counting.made] == [tuple(items[:4])]


def store_key(schedule):
    from ecad.schedules.plan_key import plan_key

    return plan_key(schedule)


def test_schedules_of_one_plan_share_their_images():
    sites = flux_sites(1, 1)
    bits = problem(4, sites).template.recompute.copy()
    bits[2, -1] = False
    dead = bits.copy()
    dead[0] = dead[2, -3:] = False  # the first step computes anyway; nobody reads what feeds a reused proj_out
    counting = Counting(batch_size=100)
    scores = evaluate(counting.evaluator, [CacheSchedule(bits, sites), CacheSchedule(dead, sites)])
    assert len(counting.made) == 1
    assert np.array_equal(*scores)


def test_forecasts_are_other_images_unless_nothing_is_reused():
    forecasting, everything = EVERY_2.replace(forecast=True), problem().template
    assert store_key(forecasting) != store_key(EVERY_2)
    assert store_key(everything.replace(forecast=True)) == store_key(everything)
    steps = EVERY_2.num_steps
    fitted = [forecasting.replace(output_products=scale * np.eye(steps)) for scale in (1, 2)]
    assert len({store_key(one) for one in (forecasting, *fitted)}) == 3
    assert store_key(EVERY_2.replace(output_products=np.eye(steps))) == store_key(EVERY_2)


def test_schedules_of_other_lengths_do_not_share():
    short, long = (
        CacheSchedule([[bit] for bit in bits], [("0", "ff")]) for bits in ([True, True], [True, True, False])
    )
    counting = Counting(batch_size=100)
    evaluate(counting.evaluator, [short, long])
    assert [schedule for schedule, _ in counting.made] == [short, long]


def test_prompts_that_share_an_id_do_not_share_scores():
    counting = Counting(seeds=(0,), prompts=[Prompt("0000", "a fox")])
    other = Counting(seeds=(0,), prompts=[Prompt("0000", "an owl")])
    with Store.open(None) as store:
        evaluate(counting.evaluator, [EVERY_2], store)
        evaluate(other.evaluator, [EVERY_2], store)
    assert len(counting.made) == len(other.made) == 1


def test_what_was_scored_before_a_failure_is_kept():
    def fail_at_the_third(schedule, items):
        if len(counting.made) == 2:
            raise RuntimeError("out of memory")
        counting.made.append((schedule, items))
        return plain.generate(schedule, items)

    plain, counting = evaluator(), Counting()
    with Store.open(None) as store:
        with pytest.raises(RuntimeError, match="out of memory"):
            evaluate(evaluator(generate=fail_at_the_third), [EVERY_2, EVERY_3], store)
        counting.made.clear()
        evaluate(counting.evaluator, [EVERY_2, EVERY_3], store)
    assert [schedule.name for schedule, _ in counting.made] == ["every_3", "every_3"]


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([1.0, 2.0, np.nan], "prompt '0', seed 2: expected a finite number, found nan"),
        ([1.0, -np.inf, 2.0], "prompt '0', seed 1: expected a finite number, found -inf"),
        ([1.0, 2.0], r"expected one score for each of 3 images, found shape \(2,\)"),
        (2.0, r"expected one score for each of 3 images, found shape \(\)"),
    ],
)
def test_a_scorer_that_does_not_answer_is_refused(scores, message):
    wrong = evaluator(num_prompts=1, score=lambda images, items: scores)
    with pytest.raises(EcadError, match=f"^synthetic of schedule 'every_2'.*{message}$"):
        evaluate(wrong, [EVERY_2])


@pytest.mark.parametrize("changes", [{"prompts": []}, {"seeds": ()}, {"batch_size": 0}])
def test_nothing_to_judge_by_is_refused(changes):
    with pytest.raises(EcadError, match=f"^`{next(iter(changes))}`: expected at least one, found 0$"):
        evaluator(**changes)
