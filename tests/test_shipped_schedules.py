"""The schedules that are shipped: named by what they are, and worth more than every n-th step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ecad import CacheSchedule, Front, builtin
from ecad.cost.architectures import find_architecture
from ecad.cost.macs import count_macs, macs_table
from ecad.schedules import heuristics
from ecad.schedules.provenance import made_for

FOLDER = Path(__file__).parents[1] / "schedules"


@pytest.fixture(params=builtin.GENERATORS)
def generator(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def shipped(generator: str) -> dict[str, CacheSchedule]:
    return {file.parent.name: CacheSchedule.load(file) for file in (FOLDER / generator).glob("*/schedule.json")}


def uncached_macs(generator: str) -> int:
    architecture = find_architecture(generator)
    steps = next(iter(shipped(generator).values())).num_steps
    return int(count_macs(heuristics.none(macs_table(architecture).sites, steps), generator))


def held_out(schedule: CacheSchedule) -> float:
    provenance, _ = made_for(schedule.attributes)
    assert provenance is not None
    assert provenance.held_out_images == 24
    return provenance.held_out["psnr"].mean


def test_they_are_named_by_how_many_times_fewer_macs_they_take(generator: str) -> None:
    whole = uncached_macs(generator)
    for name, schedule in shipped(generator).items():
        macs = int(count_macs(schedule, generator))
        assert schedule.metrics["total_macs"] == macs
        assert name == f"{whole / macs:.3g}x"


def test_no_useful_speedup_is_left_out(generator: str) -> None:
    front = Front.load(FOLDER / generator / "front.json")
    for speedup in (1.5, 2, 2.5, 3, 4, 5):
        assert front.pick(speedup=speedup).recompute.any()
    assert {plan.recompute.tobytes() for plan in front.schedules} == {
        plan.recompute.tobytes() for plan in shipped(generator).values()
    }


def assert_better(generator: str, rivals: dict[str, dict[str, float]]) -> None:
    """Each shipped schedule is better than any rival that saves as much or more; both to two digits."""
    for name, schedule in shipped(generator).items():
        alike = [rival for rival in rivals.values() if round(rival["fewer_macs"], 2) >= float(name[:-1])]
        assert all(held_out(schedule) > rival["psnr"] for rival in alike)


def test_each_is_better_than_what_the_demo_finds_that_saves_no_less() -> None:
    rivals = json.loads((FOLDER / "EmojiImageGenerator" / "demo.json").read_text())
    assert [round(rival["fewer_macs"], 1) for rival in rivals.values()] == [1.5, 2.0, 2.9, 4.0, 6.7]
    assert_better("EmojiImageGenerator", rivals)


def test_each_is_better_than_every_nth_step_that_costs_no_less(generator: str) -> None:
    whole, found = uncached_macs(generator), shipped(generator)
    rivals = json.loads((FOLDER / generator / "every_n.json").read_text())
    assert len(rivals) == 4
    assert_better(generator, rivals)
    assert min(whole / count_macs(one, generator) for one in found.values()) < min(
        rival["fewer_macs"] for rival in rivals.values()
    )


def test_none_is_dominated_on_held_out_prompts(generator: str) -> None:
    by_cost = sorted(shipped(generator).values(), key=lambda schedule: schedule.metrics["total_macs"])
    scores = [held_out(schedule) for schedule in by_cost]
    assert scores == sorted(scores)
