from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from ecad import CacheSchedule, ScheduleError
from ecad.schedules import flux_sites, heuristics, pixart_sites
from ecad.schedules.resample import resample_steps

Case = tuple[list[int], int, int]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Places that recompute, of how many steps, and how many steps there are to be."""
    steps, new_steps = draw(st.integers(1, 60)), draw(st.integers(1, 120))
    return sorted({0, *draw(st.sets(st.integers(0, steps - 1)))}), steps, new_steps


def half_up(count: int, steps: int, new_steps: int) -> int:
    return int(np.floor(count * new_steps / steps + 0.5))


@given(case=cases())
def test_the_first_step_computes_and_places_ascend(case: Case) -> None:
    computed = resample_steps(*case)
    assert computed[0] == 0
    assert all(earlier < later for earlier, later in zip(computed, [*computed[1:], case[2]], strict=True))


@given(case=cases())
def test_the_number_of_recomputations_scales_and_is_never_zero(case: Case) -> None:
    assert len(resample_steps(*case)) == max(1, half_up(len(case[0]), *case[1:]))


@given(case=cases())
def test_the_same_number_of_steps_changes_nothing(case: Case) -> None:
    computed, steps, _ = case
    assert resample_steps(computed, steps, steps) == computed


@given(steps=st.integers(1, 60), new_steps=st.integers(1, 120))
def test_all_steps_stay_all_steps(steps: int, new_steps: int) -> None:
    assert resample_steps(range(steps), steps, new_steps) == list(range(new_steps))


@given(data=st.data(), steps=st.integers(1, 60), new_steps=st.integers(1, 120))
def test_a_gate_stays_a_gate_at_its_relative_time(data: st.DataObject, steps: int, new_steps: int) -> None:
    gate = data.draw(st.integers(2, max(2, steps)))
    assume(gate <= steps)
    assert resample_steps(range(gate), steps, new_steps) == list(range(max(1, half_up(gate, steps, new_steps))))


@given(n=st.integers(1, 8), times=st.integers(1, 10), new_steps=st.integers(1, 120))
def test_a_regular_beat_stays_regular(n: int, times: int, new_steps: int) -> None:
    computed = resample_steps(range(0, n * times, n), n * times, new_steps)
    gaps = np.diff([*computed, new_steps])
    assert gaps.max() - gaps.min() <= 1


@given(n=st.integers(1, 8), times=st.integers(1, 10), new_times=st.integers(1, 20))
def test_every_n_of_whole_beats_is_every_n(n: int, times: int, new_times: int) -> None:
    assert resample_steps(range(0, n * times, n), n * times, n * new_times) == list(range(0, n * new_times, n))


@given(case=cases(), times=st.integers(1, 6))
def test_up_by_a_whole_factor_keeps_every_old_recomputation_at_its_time(case: Case, times: int) -> None:
    computed, steps, _ = case
    assert {times * step for step in computed} <= set(resample_steps(computed, steps, times * steps))


@given(case=cases())
def test_up_and_down_again_recomputes_as_often_and_nearly_as_before(case: Case) -> None:
    computed, steps, new_steps = case
    assume(new_steps >= steps)
    again = resample_steps(resample_steps(*case), new_steps, steps)
    assert len(again) == len(computed)


@given(case=cases(), times=st.integers(1, 6))
def test_up_by_a_whole_factor_and_down_again_is_where_it_was(case: Case, times: int) -> None:
    computed, steps, _ = case
    up = resample_steps(computed, steps, times * steps)
    assert resample_steps(up, times * steps, steps) == computed


@settings(suppress_health_check=[HealthCheck.filter_too_much])  # few numbers of steps keep the number of recomputations
@given(case=cases())
def test_as_many_recomputations_go_to_the_rows_nearest_in_time(case: Case) -> None:
    computed, steps, new_steps = case
    nearest = [half_up(step, steps, new_steps) for step in computed]
    new = resample_steps(*case)
    assume(len(new) == len(computed) and nearest[-1] < new_steps and len(set(nearest)) == len(nearest))
    assert new == nearest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("#", "###"),
        ("#.........", "#.........#........."),
        ("#.#.#.#.#.", "#.#.#.#.#.#.#.#."),
        ("#.#.#.#.#.", "#.##."),
        ("###.......", "#####.........."),
        ("###.......", "##..."),
        ("#..#..####", "#..#..#..######"),
        ("#........#", "#........#....#"),
        ("#........#", "#...."),
        ("#.##.", "#.#.###."),
        ("##.#..#...", "###..#.#...#..."),
    ],
)
def test_known_patterns(old: str, new: str) -> None:
    computed = [i for i, bit in enumerate(old) if bit == "#"]
    found = resample_steps(computed, len(old), len(new))
    assert "".join("#" if i in found else "." for i in range(len(new))) == new


def test_the_schedule_tells_what_it_is_and_drops_what_was_measured() -> None:
    found = heuristics.every_n(pixart_sites(3), 20, 2).replace(
        config={"height": 256}, metrics={"total_macs": 1}, spare=np.ones((2, 9), dtype=bool)
    )
    resampled = found.resample(30)
    assert np.array_equal(resampled.recompute, heuristics.every_n(pixart_sites(3), 30, 2).recompute)
    assert resampled.name == "every_2_at_30_steps"
    assert resampled.attributes == {"resampled_from": {"name": "every_2", "steps": 20, "blocks": 3}}
    assert (resampled.config, resampled.metrics, len(resampled.spare)) == ({"height": 256}, {}, 0)
    assert CacheSchedule.from_json(resampled.to_json()) == resampled


def test_nothing_to_do_is_nothing_done() -> None:
    schedule = heuristics.none(pixart_sites(2), 4)
    for same in (schedule.resample(), schedule.resample(4), schedule.resample(sites=schedule.sites)):
        assert same is schedule


def test_each_site_is_resampled_for_itself_and_the_first_step_computes() -> None:
    sites = flux_sites(2, 1)
    bits = np.random.default_rng(0).random((12, len(sites))) < 0.4
    resampled = CacheSchedule(bits, sites).resample(25)
    assert resampled.recompute[0].all()
    for old, new in zip(bits.T, resampled.recompute.T, strict=True):
        old[0] = True
        assert new.nonzero()[0].tolist() == resample_steps(old.nonzero()[0], 12, 25)


@pytest.mark.parametrize(
    ("old", "new", "source"),
    [(4, 4, [0, 1, 2, 3]), (4, 7, [0, 1, 1, 2, 2, 3, 3]), (7, 4, [0, 2, 4, 6]), (3, 1, [0]), (1, 3, [0, 0, 0])],
)
def test_blocks_come_from_the_nearest_relative_depth(old: int, new: int, source: list[int]) -> None:
    bits = np.random.default_rng(0).random((9, old, 3)) < 0.5
    carried = CacheSchedule(bits.reshape(9, -1), pixart_sites(old)).resample(sites=pixart_sites(new))
    assert np.array_equal(carried.recompute.reshape(9, new, 3), bits[:, source])


def test_the_two_lists_of_blocks_are_carried_apart() -> None:
    schedule = heuristics.every_n(flux_sites(3, 5), 8, 2, ["single_attn"])
    carried = schedule.resample(sites=flux_sites(5, 2))
    expected = heuristics.every_n(flux_sites(5, 2), 8, 2, ["single_attn"])
    assert np.array_equal(carried.recompute, expected.recompute)
    assert carried.name == schedule.name
    assert carried.attributes["resampled_from"]["blocks"] == 8


def test_steps_and_blocks_at_once_are_one_after_the_other() -> None:
    bits = np.random.default_rng(1).random((10, 12)) < 0.5
    schedule = CacheSchedule(bits, pixart_sites(4))
    both = schedule.resample(15, pixart_sites(6))
    assert np.array_equal(both.recompute, schedule.resample(sites=pixart_sites(6)).resample(15).recompute)


def test_blocks_of_other_components_are_refused() -> None:
    with pytest.raises(ScheduleError, match=r"\(block 0\): expected full_attn, full_ff, full_ff_context, found attn1"):
        heuristics.none(pixart_sites(2), 4).resample(sites=flux_sites(1, 1))


@pytest.mark.parametrize("steps", [0, -1, 2.0, True, "3"])
def test_steps_must_be_a_number_of_steps(steps: Any) -> None:
    with pytest.raises(ScheduleError, match="steps is out of range: expected a whole number from 1, found "):
        heuristics.none(pixart_sites(2), 4).resample(steps)


def tgate(gate: int, steps: int, blocks: int) -> CacheSchedule:
    """TGATE as published: the averaging named at every step and block, and the gate in the pipeline's settings."""
    entry = {"name": "compute_attn_tgate", "kwargs": {"gate_step": gate}}
    return heuristics.tgate(pixart_sites(blocks), steps, gate, sp_interval=1).replace(
        custom_compute={(i, str(b), "custom_compute_attn"): entry for i in range(steps) for b in range(blocks)},
        config={"pipeline": {"name": "tgate", "kwargs": {"gate_step": gate}}},
    )


@pytest.mark.parametrize(("steps", "gate"), [(30, 15), (10, 5), (25, 13), (4, 2)])
def test_a_gate_moves_with_its_steps_everywhere_it_is_named(steps: int, gate: int) -> None:
    resampled, expected = tgate(10, 20, 2).resample(steps), tgate(gate, steps, 2)
    assert np.array_equal(resampled.recompute, expected.recompute)
    assert resampled.custom_compute == expected.custom_compute
    assert resampled.config == expected.config
    deeper = tgate(10, 20, 2).resample(steps, pixart_sites(3))
    assert deeper.custom_compute == tgate(gate, steps, 3).custom_compute


def test_published_tgate_schedules_keep_their_gate(shared_data: Path) -> None:
    for file in (shared_data / "published-schedules" / "pixart_alpha_tgate").glob("*.json"):
        found = CacheSchedule.load(file)
        resampled = found.resample(40)
        gate = 2 * found.attributes["gate_step"]
        assert {entry["kwargs"]["gate_step"] for entry in resampled.custom_compute.values()} == {gate}
        assert len(resampled.custom_compute) == 40 * 28
        cross = resampled.recompute[:, 1::3]
        assert cross[:gate].all()
        assert not cross[gate:].any()


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([{"name": "average", "kwargs": {}}] * 4, "expected compute_attn_tgate with gate_step only, found "),
        ([{"name": "compute_attn_tgate", "kwargs": {"gate_step": 1, "x": 1}}] * 4, "with gate_step only"),
        ([{"name": "compute_attn_tgate", "kwargs": {"gate_step": "1"}}] * 4, "with gate_step only"),
        ([{"name": "compute_attn_tgate", "kwargs": {"gate_step": i // 3}} for i in range(4)], "one entry at all steps"),
        ([{"name": "compute_attn_tgate", "kwargs": {"gate_step": 1}}] * 3, "expected one entry at all steps"),
    ],
)
def test_custom_computations_that_cannot_be_carried_over_are_refused(entries: list[Any], words: str) -> None:
    custom = {(i, "0", "custom_compute_attn"): entry for i, entry in enumerate(entries)}
    schedule = heuristics.none(pixart_sites(1), 4).replace(custom_compute=custom)
    with pytest.raises(
        ScheduleError, match=r"cannot be resampled \(.*block 0, component custom_compute_attn\): "
    ) as caught:
        schedule.resample(8)
    assert words in str(caught.value)


def test_fields_of_a_schedule_with_custom_computations_can_be_replaced() -> None:
    schedule = tgate(2, 4, 1)
    assert schedule.replace(name="x").custom_compute == schedule.custom_compute


def test_another_config_drops_what_was_measured_with_the_old_one() -> None:
    old = heuristics.every_n(pixart_sites(2), 4, 2).replace(
        config={"height": 256, "sizes": [1, {"a": [2]}]}, metrics={"total_macs": 1}
    )
    new = old.replace(config={"height": 1024})
    assert (new.metrics, new.config, new.attributes) == ({}, {"height": 1024}, old.attributes)
    assert np.array_equal(new.recompute, old.recompute)
    assert old.replace(config={"height": 1024}, metrics={"total_macs": 2}).metrics == {"total_macs": 2}
    assert old.replace(config=json.loads(json.dumps(old.to_json()["config"])), name="x").metrics == old.metrics
