from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecad import CacheSchedule, ScheduleError
from ecad.schedules import flux_sites, heuristics, pixart_sites
from ecad.sites.names import Sites

SHORT = {"sa": "attn1", "ca": "attn2", "ff": "ff"}


def published(folder: Path, pattern: str) -> list[CacheSchedule]:
    return [CacheSchedule.load(file) for file in sorted(folder.glob(pattern))]


def numbers(name: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", name)]


def ours(schedule: CacheSchedule) -> CacheSchedule | None:
    """Our schedule for a published name, or None for the mutated ones that no rule makes."""
    name, sites, steps = schedule.name, schedule.sites, schedule.num_steps
    if name.startswith("recompute_"):
        chosen = ["attn1", "attn2"] if "_ca_sa_" in name else None
        return heuristics.every_n(sites, steps, numbers(name)[0], chosen)
    if name.startswith("evenly_cache_"):
        blocks, affected = numbers(name)
        return heuristics.evenly_spaced_blocks(sites, steps, blocks, affected, [SHORT[name.split("_")[2]]])
    if name.startswith("tgate_"):
        return heuristics.tgate(sites, steps, *numbers(name))
    return heuristics.none(sites, steps) if name.startswith("default") else None


@pytest.mark.parametrize(
    ("pattern", "count", "sites"),
    [
        ("flux_every_n/*.json", 19, flux_sites()),
        ("flux_default/*.json", 3, flux_sites()),
        ("pixart_sigma_every_n/*.json", 19, pixart_sites()),
        ("pixart_alpha_initial/*.json", 72, pixart_sites()),
        ("pixart_alpha_tgate/*.json", 6, pixart_sites()),
    ],
)
def test_published_schedules_come_out_bit_for_bit(shared_data: Path, pattern: str, count: int, sites: Sites) -> None:
    schedules = published(shared_data / "published-schedules", pattern)
    assert len(schedules) == count
    for schedule in schedules:
        made = ours(schedule)
        assert made is not None, schedule.name
        assert made.sites == sites
        assert np.array_equal(made.recompute, schedule.recompute), schedule.name


def pattern(schedule: CacheSchedule, component: str) -> str:
    """The bits of a component over the steps, which must be the same in all blocks."""
    rows = schedule.recompute[:, [name == component for _, name in schedule.sites]]
    assert (rows == rows[:, :1]).all()
    return "".join("#" if bit else "." for bit in rows[:, 0])


def test_none_recomputes_everything() -> None:
    schedule = heuristics.none(flux_sites(2, 3), 4)
    assert schedule.recompute.all()
    assert schedule.recompute.shape == (4, 15)


def test_every_n_of_chosen_components() -> None:
    schedule = heuristics.every_n(flux_sites(2, 3), 7, 3, ["full_ff", "single_proj_mlp"])
    assert schedule.name == "every_3_full_ff_single_proj_mlp"
    assert schedule.attributes == {"heuristic": "every_n", "n": 3, "components": ("full_ff", "single_proj_mlp")}
    for component in schedule.components:
        cached = component in ("full_ff", "single_proj_mlp")
        assert pattern(schedule, component) == ("#..#..#" if cached else "#######")


def test_middle_blocks() -> None:
    schedule = heuristics.middle_blocks(flux_sites(3, 4), 6, num_blocks=2, num_steps=3, components=["single_attn"])
    reused = {site for site, column in zip(schedule.sites, schedule.recompute.T, strict=True) if not column.all()}
    assert reused == {("single_1", "single_attn"), ("single_2", "single_attn")}
    column = schedule.recompute[:, schedule.sites.index(("single_1", "single_attn"))]
    assert column.tolist() == [True, False, True, False, True, False]


def test_middle_blocks_that_cannot_be_centred_stand_nearer_the_start() -> None:
    reused = ~heuristics.middle_blocks(pixart_sites(5), 2, num_blocks=2, num_steps=1).recompute[1].reshape(5, 3)
    assert reused.all(axis=1).tolist() == [False, True, True, False, False]


def test_tgate_with_intervals_on_both_sides_of_the_gate() -> None:
    schedule = heuristics.tgate(pixart_sites(2), 12, gate=7, sp_interval=3, fi_interval=4, warmup=2)
    assert pattern(schedule, "attn1") == "##.#..#.#..."
    assert pattern(schedule, "attn2") == "#######....."
    assert pattern(schedule, "ff") == "############"


def test_tgate_of_other_component_names() -> None:
    sites = tuple((f"layers.{i}", name) for i in range(2) for name in ("self", "cross"))
    schedule = heuristics.tgate(sites, 4, 2, sp_interval=2, self_attention="self", cross_attention="cross")
    assert pattern(schedule, "self") == "####"
    assert pattern(schedule, "cross") == "##.."


heuristic_cases: list[tuple[Callable[..., CacheSchedule], dict[str, Any], str]] = [
    (heuristics.none, {"steps": 0}, "steps is out of range: expected a whole number from 1, found 0"),
    (heuristics.every_n, {"n": 0}, "n is out of range: expected a whole number from 1, found 0"),
    (heuristics.every_n, {"n": 2.0}, "found 2.0"),
    (heuristics.every_n, {"n": True}, "found True"),
    (heuristics.every_n, {"n": 2, "components": ["attn3"]}, "expected attn1, attn2, ff, found 'attn3'"),
    (heuristics.every_n, {"n": 2, "components": []}, "no component was chosen"),
    (heuristics.evenly_spaced_blocks, {"num_blocks": 4, "num_steps": 1}, "num_blocks .* from 0 to 3, found 4"),
    (heuristics.evenly_spaced_blocks, {"num_blocks": 1, "num_steps": 5}, "num_steps .* from 0 to 4, found 5"),
    (heuristics.middle_blocks, {"num_blocks": 4, "num_steps": 1}, "num_blocks is out of range"),
    (heuristics.middle_blocks, {"num_blocks": 1, "num_steps": -1}, "num_steps is out of range"),
    (heuristics.tgate, {"gate": 6}, "gate is out of range: expected a whole number from 1 to 5, found 6"),
    (heuristics.tgate, {"gate": 3, "sp_interval": 0}, "sp_interval is out of range"),
    (heuristics.tgate, {"gate": 3, "fi_interval": 0}, "fi_interval is out of range"),
    (heuristics.tgate, {"gate": 3, "warmup": 0}, "warmup is out of range"),
    (heuristics.tgate, {"gate": 3, "cross_attention": "cross"}, "no block has this component"),
]


@pytest.mark.parametrize(("make", "arguments", "words"), heuristic_cases)
def test_arguments_out_of_range(make: Callable[..., CacheSchedule], arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ScheduleError, match=words):
        make(pixart_sites(3), **{"steps": 5} | arguments)


@given(data=st.data(), steps=st.integers(1, 60), depth=st.integers(1, 40))
def test_blocks_and_steps_are_as_many_as_asked_for(data: st.DataObject, steps: int, depth: int) -> None:
    num_blocks, num_steps = data.draw(st.integers(0, depth)), data.draw(st.integers(0, steps - 1))
    components = data.draw(st.lists(st.sampled_from(["attn1", "attn2", "ff"]), min_size=1, max_size=3, unique=True))
    for make in (heuristics.evenly_spaced_blocks, heuristics.middle_blocks):
        schedule = make(pixart_sites(depth), steps, num_blocks, num_steps, components)
        reused = ~schedule.recompute.reshape(steps, depth, 3)
        assert reused.sum() == num_blocks * num_steps * len(components)
        assert reused.any(axis=(1, 2)).sum() == (num_steps if num_blocks else 0)
        assert reused.any(axis=(0, 2)).sum() == (num_blocks if num_steps else 0)
        assert not reused[0].any()


def test_all_of_them_are_written_and_read(tmp_path: Path) -> None:
    sites = pixart_sites(4)
    for schedule in (
        heuristics.none(sites, 5),
        heuristics.every_n(sites, 5, 2),
        heuristics.evenly_spaced_blocks(sites, 5, 2, 2),
        heuristics.middle_blocks(sites, 5, 2, 2, ["ff"]),
        heuristics.tgate(sites, 5, 3),
    ):
        schedule.save(tmp_path / f"{schedule.name}.json")
        assert CacheSchedule.load(tmp_path / f"{schedule.name}.json") == schedule
    names = {json.loads(file.read_text())["cache_schedule"]["name"] for file in tmp_path.iterdir()}
    assert names == {
        "none",
        "every_2",
        "evenly_2_blocks_2_steps_attn1_attn2_ff",
        "middle_2_blocks_2_steps_ff",
        "tgate_gate_3_sp_interval_5_fi_interval_1_warmup_2",
    }
