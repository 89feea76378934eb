"""Several numbers of steps against one reference: one front."""

from __future__ import annotations

import numpy as np
import pytest

from ecad.errors import EcadError
from ecad.genetic import LocalEvaluator, Problem
from ecad.genetic.budget import Budget
from ecad.genetic.evaluation.evaluator import REFERENCE_STEPS
from ecad.genetic.evaluation.workers import SearchSetup
from ecad.genetic.searches import joint_candidates, joint_front, owner_of, search_each, uncached_cost
from ecad.prompts import Prompt
from ecad.schedules import CacheSchedule, heuristics, pixart_sites
from ecad.schedules.provenance import Provenance

SITES = pixart_sites(1)


def decibels(schedule: CacheSchedule) -> float:
    """Errors of few steps and of reuse add up."""
    return -10 * np.log10(1e-5 + 0.3 / schedule.num_steps**3 + 1e-2 * float((~schedule.recompute).mean()) ** 2)


def setup(steps: int) -> SearchSetup:
    problem = Problem(heuristics.none(SITES, steps), lambda bits, _: bits.sum(axis=(1, 2)))
    judge = LocalEvaluator(
        generate=lambda schedule, items: [schedule] * len(items),
        score=lambda images, items: np.array([decibels(schedule) for schedule in images]),
        scorer="psnr",
        prompts=[Prompt("0", "a fox")],
        seeds=[0],
        batch_size=1,
        decibels=True,
        settings={REFERENCE_STEPS: 12},
    )
    return SearchSetup(steps, problem, None, lambda which: judge, Provenance("D", "1", "2"), None)  # type: ignore[arg-type]


@pytest.fixture
def searched(tmp_path):
    return search_each([setup(6), setup(12)], tmp_path, Budget(generations=3), population_size=6)


def test_each_number_of_steps_is_a_study_and_they_share_one_front(searched, tmp_path):
    assert [one.folder for one in searched] == [tmp_path / "steps_006", tmp_path / "steps_012"]
    assert uncached_cost(searched) == 12 * len(SITES)
    front = joint_front(searched)
    assert {one.plain.num_steps for one in front} == {6, 12}
    known = joint_candidates(searched)
    assert len({one.name for one in known}) == len(known)
    for one in front:
        assert not any(other.cost <= one.cost and other.quality > one.quality for other in known)
        owner = owner_of(searched, one)
        assert (
            one.name
            == f"steps_{owner.setup.steps:03d}_{one.path.stem.replace('cand', f'gen_{one.generation:03d}_cand')}"
        )


def test_fewer_steps_without_reuse_are_a_candidate(searched):
    whole = [one for one in joint_candidates(searched) if one.plain.recompute.all()]
    assert [one.plain.num_steps for one in whole] == [6, 12]
    assert [one.generation for one in whole] == [0, 0]


def test_seconds_and_images_are_divided(tmp_path):
    found = search_each([setup(6), setup(12)], tmp_path, Budget(max_images=40), population_size=6)
    assert [(one.study.images, len(one.study.candidates)) for one in found] == [(20, 20), (20, 20)]


def test_a_speedup_is_over_the_most_steps(tmp_path):
    found = search_each([setup(6), setup(12)], tmp_path, Budget(generations=2), target_speedup=3, population_size=6)
    assert {one.study.settings["max_cost"] for one in found} == {12.0}
    assert all(one.cost <= 12 for one in joint_candidates(found))
    with pytest.raises(EcadError, match=r"`target_speedup` 50: no schedule of 6 steps reaches it.* 12\.00x"):
        search_each([setup(6), setup(12)], tmp_path / "x", Budget(generations=2), target_speedup=50)


def test_one_number_of_steps_is_searched_in_the_folder_itself(tmp_path):
    [found] = search_each([setup(6)], tmp_path, Budget(generations=1), population_size=4)
    assert (found.folder, found.prefix) == (tmp_path, "")
