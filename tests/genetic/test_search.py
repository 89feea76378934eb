"""What a search gives, what it is limited by, and with which settings it goes on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import synthetic
from synthetic import COEFFICIENTS, content, evaluator, problem

from ecad.calibration.step_choice import Outputs
from ecad.errors import EcadError, ScheduleError
from ecad.genetic import Study
from ecad.genetic.algorithms.surrogate_search import Ingredients
from ecad.genetic.search import search
from ecad.schedules import CacheSchedule, heuristics, pixart_sites
from ecad.schedules.json_values import freeze
from ecad.utils.pareto import hypervolume

pytestmark = pytest.mark.usefixtures("few_offspring")
SMALL = {"generations": 5, "population_size": 6}
LEVELS = {"sigmas": [5.0, 4.0, 3.0, 2.0, 1.0], "prediction_type": "epsilon"}
SIZES = [6, 6, 6, 6, 6]  # mode fast begins with what is promising: six of five steps


@pytest.mark.parametrize("mode", ["paper", "fast"])
def test_the_same_search_gives_the_same_study(tmp_path, mode):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        search(problem(), evaluator(), tmp_path / name, mode=mode, seed=seed, **SMALL)
    first, second, other = (content(tmp_path / name) for name in "abc")
    assert first == second
    assert first["candidates"] != other["candidates"]


def test_candidates_are_written_in_the_papers_layout(tmp_path):
    study = search(problem(), evaluator(), tmp_path, **SMALL)
    names = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.json"))
    assert names == [f"gen_{g:03d}/candidates/cand_{c:03d}.json" for g in range(5) for c in range(SIZES[g])]
    for candidate in study.candidates:
        schedule = CacheSchedule.load(tmp_path / candidate.path)
        assert schedule == candidate.schedule
        assert np.array_equal(schedule.recompute, candidate.recompute)
        assert schedule.metrics["total_macs"] == problem().costs(candidate.recompute[None])[0] == candidate.cost
        assert schedule.metrics["quality"] == candidate.quality == study.scores(candidate).mean()
        assert schedule.config == {"height": 64}
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {"study.sqlite", "study.lock"}


@pytest.mark.parametrize("mode", ["paper", "fast"])
def test_given_schedules_are_the_first_candidates(mode):
    given = [heuristics.every_n(synthetic.SITES, 5, n) for n in (2, 3)]
    study = search(problem(), evaluator(), mode=mode, initial=given, generations=1, population_size=6)
    assert [np.array_equal(a.recompute, b.recompute) for a, b in zip(study.candidates, given, strict=False)] == [
        True
    ] * 2
    assert len(study.candidates) == {"paper": 6, "fast": 7}[mode]


@pytest.mark.parametrize("mode", ["paper", "fast"])
def test_a_search_of_schedules_that_forecast_makes_and_keeps_such(tmp_path, mode):
    made = []

    def generate(schedule, items):
        made.append(schedule)
        return [0.0] * len(items)

    forecasting = replace(problem(), forecast="always")
    counting = evaluator(generate=generate, score=lambda images, items: np.array(images))
    study = search(forecasting, counting, tmp_path, mode=mode, generations=2, population_size=4)
    assert made
    assert all(schedule.forecast for schedule in made)
    assert all(candidate.schedule.forecast for candidate in study.candidates)
    assert CacheSchedule.load(tmp_path / study.candidates[0].path) == study.candidates[0].schedule
    assert not study.uncached.forecast
    with pytest.raises(EcadError, match='the study has other settings: forecast: expected "always", found nothing'):
        search(problem(), counting, tmp_path, mode=mode, generations=2, population_size=4)


def test_a_search_finds_out_which_schedules_should_forecast(tmp_path):
    """Where more than half is recomputed a forecast is worth something here, elsewhere it does harm."""
    plain = evaluator()

    def generate(schedule, items):
        gain = (5 if schedule.share_recomputed > 0.5 else -5) * schedule.forecast
        return [one + gain for one in plain.generate(schedule, items)]

    model, judge = replace(problem(), forecast="either"), evaluator(generate=generate)
    candidates = search(model, judge, tmp_path / "either", generations=8, population_size=12).candidates
    front = Study.open(tmp_path / "either").front()
    assert {one.schedule.forecast for one in front} == {False, True}
    assert all(one.schedule.forecast == (one.schedule.share_recomputed > 0.5) for one in front)
    again = Study.open(tmp_path / "either").candidates
    for before, after in zip(candidates, again, strict=True):
        assert CacheSchedule.load(tmp_path / "either" / after.path) == before.schedule == after.schedule


def hypervolume_of(study):
    cost, quality = ([getattr(candidate, name) for candidate in study.front()] for name in ("cost", "quality"))
    return hypervolume(np.array(cost), np.array(quality), study.uncached_cost, -100.0)


def test_a_limit_is_a_limit():
    free = search(problem(), evaluator(), **SMALL).front()
    most, least = free[len(free) // 2].cost, free[len(free) // 4].quality
    limited = search(problem(), evaluator(), max_cost=most, min_quality=least, **SMALL).front()
    assert limited
    assert all(c.cost <= most and c.quality >= least for c in limited)
    assert not all(c.cost <= most and c.quality >= least for c in free)


CHANGES = {
    "max_cost": {"max_cost": problem().uncached_cost / 2},
    "min_quality": {"min_quality": -3.0},
    "ingredients.probes": {"ingredients": Ingredients(probes=False)},
    "mode": {"mode": "paper"},
    "population_size": {"population_size": 8},
    "seed": {"seed": 1},
    "initial": {"initial": [heuristics.every_n(synthetic.SITES, 5, 2)]},
    "scorer": {"evaluator": evaluator(scorer="other")},
    "seeds": {"evaluator": evaluator(seeds=(0, 1, 3))},
    "prompts": {"evaluator": evaluator(num_prompts=3)},
    "batch_size": {"evaluator": evaluator(batch_size=3)},
    "evaluator.guidance_scale": {"evaluator": evaluator(settings={"guidance_scale": 3.0})},
    "steps": {"problem": problem(steps=4)},
    "sites": {"problem": problem(sites=pixart_sites(3))},
    "uncached_cost": {"problem": type(problem())(problem().template, lambda bits, _: bits.sum(axis=(1, 2)))},
    "config.height": {"problem": type(problem())(problem().template.replace(config={"height": 8}), problem().price)},
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_study_is_not_resumed_with_other_settings(tmp_path, name):
    usual = {"problem": problem(), "evaluator": evaluator(), "folder": tmp_path, **SMALL}
    search(**usual)
    before = content(tmp_path)
    with pytest.raises(EcadError, match=f"the study has other settings: {name}.*expected .*found ") as caught:
        search(**{**usual, **CHANGES[name]})
    assert "\n" not in str(caught.value)
    assert content(tmp_path) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "quick"}, "`mode` 'quick' is unknown: expected paper or fast"),
        ({"generations": 0}, "`generations`: expected at least 1, found 0"),
        ({"population_size": 1}, "`population_size`: expected at least 2, found 1"),
        ({"max_seconds": -1.0}, "`max_seconds`: expected at least 0, found -1.0"),
        ({"max_seconds": float("nan")}, "`max_seconds`: expected at least 0, found nan"),
        ({"max_cost": 10}, "`max_cost`: expected at least .*, found 10"),
        ({"mode": "paper", "min_quality": 1.0}, "`mode` paper takes no limit on cost, quality or memory"),
        ({"problem": problem(steps=1)}, "`steps`: expected at least 2, found 1"),
        ({"initial": [heuristics.none(pixart_sites(2), 20)]}, "schedule 'none' does not fit this search"),
    ],
)
def test_nonsense_is_refused_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises((EcadError, ScheduleError), match=message):
        search(**{"problem": problem(), "evaluator": evaluator(), "folder": tmp_path / "study", **SMALL, **changes})
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("mode", ["paper", "fast"])
def test_what_a_study_knows_of_outputs_is_asked_once_and_is_in_each_schedule_that_forecasts(tmp_path, mode):
    asked, made = [], []
    plain = evaluator()

    def outputs_of(items):
        asked.append(items)
        outputs = np.random.default_rng(len(asked)).normal(size=(5, 9))
        return Outputs(outputs @ outputs.T, COEFFICIENTS, LEVELS)

    def generate(schedule, items):
        made.append(schedule)
        return plain.generate(schedule, items)

    def run(generations):
        telling = evaluator(generate=generate, outputs_of=outputs_of)
        either = replace(problem(), forecast="either" if mode == "fast" else "always")
        return search(either, telling, tmp_path, mode=mode, generations=generations, population_size=6)

    run(1)
    assert len(asked) == 1
    assert len(asked[0]) == plain.batch_size
    study = run(3)
    assert len(asked) == 1
    outputs = np.random.default_rng(1).normal(size=(5, 9))
    for schedule in [*made, *(candidate.schedule for candidate in study.candidates)]:
        assert {key: schedule.config[key] for key in LEVELS} == {key: freeze(value) for key, value in LEVELS.items()}
        if schedule.forecast:
            np.testing.assert_array_equal(schedule.output_products, outputs @ outputs.T)
        else:
            assert schedule.output_products is None
    assert Study.open(tmp_path).candidates[-1].schedule == study.candidates[-1].schedule


def test_a_search_without_forecasts_makes_no_images_to_forecast_by():
    def outputs_of(items):
        raise AssertionError

    study = search(problem(), evaluator(outputs_of=outputs_of), generations=1, population_size=6)
    assert "output_products" not in study.settings
