from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecad import CacheSchedule, EcadError, Front, ScheduleError
from ecad.schedules import heuristics, pixart_sites
from ecad.schedules.front import Point
from ecad.schedules.provenance import Interval

SITES = pixart_sites(2)


def point(n: int, quality: float, cost: float | None = None) -> Point:
    schedule = heuristics.every_n(SITES, 12, n)
    return Point(schedule, 1 / n if cost is None else cost, quality, {"psnr": Interval(1.0, 0.5, 2.0)})


@pytest.fixture
def front() -> Front:
    return Front("tiny", [point(2, 40.0), point(4, 20.0), point(3, 30.0)], provenance={"images": 3})


def test_a_file_gives_back_what_was_saved(front: Front, tmp_path: Path) -> None:
    front.save(tmp_path / "front.json")
    assert Front.load(tmp_path / "front.json") == front


def test_points_are_kept_cheapest_first(front: Front) -> None:
    assert [one.name for one in front.schedules] == ["every_4", "every_3", "every_2"]
    assert [one.speedup for one in front.points] == [4, 3, 2]


@given(st.integers(1, 40), st.integers(1, 40))
def test_a_cost_of_exactly_the_asked_fraction_is_cheap_enough(computed: int, more: int) -> None:
    steps = computed + more
    front = Front("tiny", [point(2, 1.0, computed / steps)])
    assert front.pick(speedup=steps / computed)


def test_speedup_picks_the_best_that_is_cheap_enough(front: Front) -> None:
    assert front.pick(speedup=2.5).name == "every_3"
    assert Front("tiny", [point(4, 50.0), point(3, 30.0)]).pick(speedup=3).name == "every_4"


def test_quality_picks_the_cheapest_that_is_good_enough(front: Front) -> None:
    assert front.pick(quality=30.0).name == "every_3"
    assert front.pick(quality=-10.0).name == "every_4"


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"speedup": 4.1}, "no schedule is 4.1 times cheaper: expected at most 4.00"),
        ({"quality": 41}, "no schedule has a psnr of 41: expected at most 40.00"),
        ({}, "takes either speedup or quality, and not both"),
        ({"quality": 1, "speedup": 1}, "takes either speedup or quality, and not both"),
    ],
)
def test_what_is_not_there_is_not_picked(front: Front, wanted: dict[str, float], message: str) -> None:
    with pytest.raises(EcadError, match=message):
        front.pick(**wanted)


def test_a_front_of_several_models_is_refused() -> None:
    other = CacheSchedule(np.ones((12, 9), dtype=bool), pixart_sites(3), "other")
    with pytest.raises(EcadError, match="expected schedules of one model, found 'every_2' and 'other'"):
        Front("mixed", [point(2, 1.0), Point(other, 1.0, 1.0)])


def test_a_front_without_schedules_is_refused() -> None:
    with pytest.raises(EcadError, match="front 'empty' has no schedules"):
        Front("empty", [])


@pytest.mark.parametrize("wrong", [{"cost": 0.0}, {"cost": float("nan")}, {"quality": float("nan")}])
def test_costs_and_qualities_are_numbers(wrong: dict[str, float]) -> None:
    with pytest.raises(EcadError, match="expected finite numbers and costs above 0"):
        Front("odd", [point(2, **({"quality": 1.0} | wrong))])


def broken(change: Any) -> Any:
    def made(document: dict[str, Any]) -> Any:
        change(document)
        return document

    return made


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: [], "not a front"),
        (lambda _: {"cache_schedule": {}}, "format: not a front"),
        (
            broken(lambda d: d.update(format="ecad front 2")),
            "format: not a front: expected Input should be 'ecad front",
        ),
        (broken(lambda d: d.update(points=[])), "points: not a front"),
        (broken(lambda d: d["points"][0].update(cost=-1)), "points.0.cost: not a front"),
        (broken(lambda d: d["points"][0].update(quallity=1)), "points.0.quallity: not a front"),
        (broken(lambda d: d["points"][1].pop("schedule")), "points.1.schedule: not a front: expected Field required"),
        (broken(lambda d: d["points"][1]["schedule"].pop("cache_schedule")), "points.1.schedule: cache_schedule"),
    ],
)
def test_a_malformed_file_is_refused_by_field(front: Front, tmp_path: Path, change: Any, message: str) -> None:
    file = tmp_path / "front.json"
    front.save(file)
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    with pytest.raises(ScheduleError) as caught:
        Front.load(file)
    assert str(caught.value).startswith(str(file)[:20])
    assert message in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"{", b"[" * 100_000])
def test_what_is_no_json_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "front.json").write_bytes(content)
    with pytest.raises(ScheduleError):
        Front.load(tmp_path / "front.json")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScheduleError, match=r"none.json: cannot read this front: No such file"):
        Front.load(tmp_path / "none.json")
