from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecad import CacheSchedule, EcadError, ScheduleError
from ecad.schedules import heuristics, pixart_sites
from ecad.schedules.plan_key import plan_key

SITES = pixart_sites(2)


@pytest.fixture
def schedule() -> CacheSchedule:
    bits = np.arange(18).reshape(3, 6) % 4 > 0
    return CacheSchedule(
        bits,
        SITES,
        name="some",
        config={"pipeline": {"name": "p", "kwargs": {"steps": [1, 2]}}},
        metrics={"total_macs": 1},
        attributes={"n": 2},
    )


def test_nothing_of_it_can_change(schedule: CacheSchedule) -> None:
    with pytest.raises(ValueError, match="read-only"):
        schedule.recompute[0, 0] = True
    with pytest.raises(AttributeError):
        schedule.name = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        schedule.config["height"] = 1  # type: ignore[index]
    with pytest.raises(TypeError):
        schedule.config["pipeline"]["kwargs"]["steps"][0] = 5


def test_what_it_was_made_from_can_change_later() -> None:
    bits, config = np.ones((1, 6), dtype=bool), {"a": [1]}
    schedule = CacheSchedule(bits, SITES, config=config)
    bits[:] = False
    config["a"].append(2)
    assert schedule.recompute.all()
    assert schedule.to_json()["config"] == {"a": [1]}
    schedule.to_json()["config"]["a"].append(3)
    assert schedule.to_json()["config"] == {"a": [1]}


@pytest.mark.parametrize(
    "changes",
    [
        {"recompute": np.ones((3, 6), dtype=bool), "metrics": {"total_macs": 1}, "attributes": {"n": 2}},
        {"name": "other"},
        {"config": {}},
        {"metrics": {"total_macs": 1.0}},
        {"attributes": {"n": True}},
        {"spare": np.ones((1, 6), dtype=bool)},
        {"custom_compute": {(0, "0", "custom_compute_ff"): {"name": "x", "kwargs": {}}}},
        {"skeleton": {"cache_schedule": None, "by": "someone"}},
    ],
)
def test_equal_means_equal_content(schedule: CacheSchedule, changes: dict[str, Any]) -> None:
    same = schedule.replace(recompute=schedule.recompute.copy())
    assert schedule == same
    assert hash(schedule) == hash(same)
    assert schedule != schedule.replace(**changes)
    assert schedule != "some"


def test_order_of_named_sites_is_content() -> None:
    first, second = (CacheSchedule([[True, True]], sites) for sites in (named("a", "b"), named("b", "a")))
    assert first != second


def named(*blocks: str) -> tuple[tuple[str, str], ...]:
    return tuple((block, "attn") for block in blocks)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy], ids=["copy", "deepcopy"])
def test_copies_equal(schedule: CacheSchedule, copied: Any) -> None:
    again = copied(schedule)
    assert again == schedule
    assert json.dumps(again.to_json()) == json.dumps(schedule.to_json())


def test_bits_are_step_major(schedule: CacheSchedule) -> None:
    bits = schedule.to_bits()
    assert bits.dtype == np.bool_
    assert bits.tolist() == [i % 4 > 0 for i in range(18)]
    bits[:] = False
    assert schedule.recompute.any()
    again = CacheSchedule.from_bits(schedule.to_bits(), SITES, name="again")
    assert np.array_equal(again.recompute, schedule.recompute)
    assert again.name == "again"


@pytest.mark.parametrize(
    "bits", [np.ones(7, dtype=bool), np.ones((3, 6), dtype=bool), np.ones(6), np.ones(0, dtype=bool)]
)
def test_bits_that_do_not_fit(bits: np.ndarray) -> None:
    with pytest.raises(ScheduleError):
        CacheSchedule.from_bits(bits, SITES)


def test_replaced_custom_computation_or_forecasts_lose_what_was_measured_of_the_old_ones(schedule) -> None:
    entry = {"name": "x", "kwargs": {"gate_step": 1}}
    custom = {(0, "0", "custom_compute_ff"): entry}
    gated = schedule.replace(custom_compute=custom, metrics={"total_macs": 1}, attributes={"n": 1})
    for changed in ({}, {(1, "0", "custom_compute_ff"): entry}):
        other = gated.replace(custom_compute=changed)
        assert (other.metrics, other.attributes) == ({}, {})
    same = gated.replace(custom_compute={key: dict(entry) for key, entry in custom.items()})
    assert (same.metrics, same.attributes) == ({"total_macs": 1}, {"n": 1})
    assert schedule.replace(forecast=True).metrics == {}


def test_the_same_sites_in_another_form_lose_nothing(schedule: CacheSchedule) -> None:
    lists = schedule.replace(sites=[list(site) for site in schedule.sites])
    assert lists == schedule
    assert lists.metrics == {"total_macs": 1}


def test_replaced_bits_lose_what_was_measured_of_the_old_ones(schedule: CacheSchedule) -> None:
    other = schedule.replace(recompute=~schedule.recompute)
    assert (other.metrics, other.attributes, other.name, other.config) == ({}, {}, "some", schedule.config)
    assert schedule.replace(recompute=schedule.recompute, name="x").metrics == {"total_macs": 1}
    assert schedule.replace(recompute=~schedule.recompute, metrics={"total_macs": 2}).metrics == {"total_macs": 2}
    assert schedule.replace(recompute=np.ones((1, 2), dtype=bool), sites=named("a", "b")).blocks == ("a", "b")


def test_what_it_tells_of_itself(schedule: CacheSchedule) -> None:
    assert schedule.num_steps == 3
    assert schedule.blocks == ("0", "1")
    assert schedule.components == ("attn1", "attn2", "ff")
    assert schedule.share_recomputed == 13 / 18
    assert repr(schedule) == "CacheSchedule('some', 3 steps × 6 sites, 72.2% recomputed)"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"recompute": np.ones((2, 6))}, r"expected bool \(steps, 6 sites\), found float64 \(2, 6\)"),
        ({"recompute": np.ones((2, 6), dtype=int)}, "found int64"),
        ({"recompute": np.ones((2, 5), dtype=bool)}, r"found bool \(2, 5\)"),
        ({"recompute": np.ones(6, dtype=bool)}, r"found bool \(6,\)"),
        ({"recompute": np.ones((0, 6), dtype=bool)}, "no steps: expected at least one step, found none"),
        ({"recompute": [[True] * 6, [True] * 5]}, "found rows of different lengths"),
        ({"recompute": "yes"}, "not a table of bits"),
        ({"spare": np.ones((1, 5), dtype=bool)}, r"found bool \(1, 5\)"),
        ({"sites": ()}, "no sites"),
        ({"name": 5}, "not a name: expected one line of text, found 5"),
        ({"name": "two\nlines"}, "not a name"),
        ({"config": []}, "config: not an object"),
        ({"metrics": {"avg": float("nan")}}, "metrics.avg: not a finite number"),
        ({"attributes": {"who": {1, 2}}}, "attributes.who: not a JSON value: .*found set"),
        (
            {"custom_compute": {(3, "0", "custom_compute_ff"): {}}},
            "custom_compute: .*found step 3, block 0",
        ),
        ({"custom_compute": {(0, "2", "custom_compute_ff"): {}}}, "custom_compute: no such place"),
        ({"custom_compute": {(0, "0", "attn1"): {"name": "x", "kwargs": {}}}}, "custom_compute: no such place"),
        ({"custom_compute": {(1, "0", "custom_compute_ff"): {"name": "x"}}}, "kwargs: missing .step 001, block 0,"),
    ],
)
def test_refuses_fields_that_do_not_go_together(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ScheduleError, match=words):
        CacheSchedule(**{"recompute": np.ones((3, 6), dtype=bool), "sites": SITES} | fields)


def test_saving_over_a_file_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "new" / "folder" / "s.json"
    first = heuristics.none(SITES, 2)
    first.save(file)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(EcadError, match=r"s\.json: cannot write this file: No space left on device"):
        heuristics.every_n(SITES, 2, 2).save(file)
    assert CacheSchedule.load(file) == first
    assert [path.name for path in file.parent.iterdir()] == ["s.json"]


def weighted() -> CacheSchedule:
    bits = [[True, True], [False, False], [True, False], [False, False]]
    rows = [[1.0], [0.9], [1.0, 0.25], [1.1, -0.5]]
    return CacheSchedule(bits, (("0", "attn1"), ("0", "ff")), forecast=True, output_weights=rows)


def test_output_weights_are_in_its_file() -> None:
    schedule = weighted()
    again = CacheSchedule.from_json(schedule.to_json())
    assert again == schedule
    assert again.output_weights == ((1.0,), (0.9,), (1.0, 0.25), (1.1, -0.5))
    assert again != schedule.replace(output_weights=None)
    assert "output_weights" not in schedule.replace(output_weights=None).to_json()["cache_schedule"]


def test_output_weights_go_with_the_bits_that_they_were_fitted_to() -> None:
    schedule = weighted().replace(attributes={"a": 1}, metrics={"b": 2})
    assert schedule.replace(recompute=np.ones((4, 2), dtype=bool)).output_weights is None
    assert schedule.replace(forecast=False).output_weights is None
    assert schedule.resample(6).output_weights is None
    renamed = schedule.replace(name="other")
    assert renamed.output_weights == schedule.output_weights
    assert renamed.attributes == {"a": 1}
    other = schedule.replace(output_weights=[[1.0]] * 4)
    assert (dict(other.attributes), dict(other.metrics)) == ({}, {})


def test_images_depend_on_output_weights() -> None:
    schedule = weighted()
    all_computed = schedule.replace(recompute=np.ones((4, 2), dtype=bool))
    weights = [[1.0], [1.0], [1.0], [1.0, 0.5]]
    keys = [plan_key(one) for one in (schedule, schedule.replace(output_weights=[[1.0]] * 4), all_computed)]
    keys += [plan_key(all_computed.replace(output_weights=weights)), plan_key(schedule.replace(output_weights=None))]
    assert len(set(keys)) == len(keys)
    assert plan_key(schedule.replace(name="other")) == keys[0]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1.0]], "output_weights: not a table of output weights: expected 4 rows, one per step, found 1"),
        ([[1.0], [], [1.0], [1.0]], "output_weights.1: .* expected 1 to 1 weights: 1 outputs are computed by then"),
        ([[1.0], [1.0, 0.5], [1.0], [1.0]], "output_weights.1: .* expected 1 to 1 weights.* found 2"),
        ([[1.0], [1.0], [1.0, 1, 1], [1.0]], "output_weights.2: .* expected 1 to 2 weights"),
        ([[1.0], [1.0], [1.0], [float("nan")]], "output_weights.3: .* expected finite numbers"),
    ],
)
def test_output_weights_that_do_not_fit_are_refused(rows: list[list[float]], message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        weighted().replace(output_weights=rows)


def test_output_weights_of_a_schedule_that_repeats_are_refused() -> None:
    with pytest.raises(ScheduleError, match="expected forecast true beside them"):
        weighted().replace(forecast=False, output_weights=[[1.0]] * 4)
