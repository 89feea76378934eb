"""Counting rows off a scheduler."""

from __future__ import annotations

import diffusers
import pytest
import torch

from ecad.runtime.clock import StepClock


class Heard:
    """A clock and what it has announced."""

    def __init__(self, scheduler) -> None:
        self.said: list[str] = []
        self.clock = StepClock(lambda: self.said.append("timesteps"), lambda: self.said.append("end"))
        self.clock.follow(scheduler)


def step(scheduler) -> None:
    timestep = scheduler.timesteps[scheduler.step_index or 0]
    scheduler.step(torch.zeros(1, 4, 2, 2), timestep, torch.zeros(1, 4, 2, 2))


def test_rows_of_a_generation():
    scheduler = diffusers.EulerDiscreteScheduler()
    heard = Heard(scheduler)
    clock = heard.clock
    assert clock.step is None
    for _ in range(2):
        scheduler.set_timesteps(3)
        assert (clock.rows, clock.starting) == (3, True)
        clock.start()
        rows = []
        for _ in range(3):
            rows.append(clock.step)
            step(scheduler)
        assert rows == [0, 1, 2]
        assert clock.step is None
    assert heard.said == ["timesteps", "end"] * 2


def test_heun_takes_two_rows_a_step():
    scheduler = diffusers.HeunDiscreteScheduler()
    clock = Heard(scheduler).clock
    scheduler.set_timesteps(4)
    assert clock.rows == 7
    clock.start()
    for row in range(7):
        assert clock.step == row
        step(scheduler)
    assert clock.step is None


def test_image_to_image_begins_in_the_middle():
    scheduler = diffusers.EulerDiscreteScheduler()
    clock = Heard(scheduler).clock
    scheduler.set_timesteps(5)
    scheduler.set_begin_index(3)
    clock.start()
    assert clock.step == 3
    scheduler.set_timesteps(5)
    clock.start()
    assert clock.step == 0


def test_another_scheduler_is_followed_into_its_generation():
    first, second = diffusers.EulerDiscreteScheduler(), diffusers.EulerDiscreteScheduler()
    before = set(vars(first))
    clock = Heard(first).clock
    second.set_timesteps(3)
    clock.follow(second)
    assert (clock.rows, clock.starting) == (3, True)
    assert set(vars(first)) == before
    clock.start()
    step(second)
    assert clock.step == 1
    clock.follow(None)
    assert clock.step is None
    assert "step" not in vars(second)


def test_a_scheduler_that_was_never_set_begins_no_generation():
    clock = Heard(diffusers.EulerDiscreteScheduler()).clock
    assert not clock.starting


@pytest.mark.parametrize("leaver", [0, 1])
def test_two_clocks_on_one_scheduler_know_of_each_other(leaver):
    scheduler = diffusers.EulerDiscreteScheduler()
    clocks = [Heard(scheduler).clock]
    assert not clocks[0].is_shared
    clocks.append(Heard(scheduler).clock)
    assert [clock.is_shared for clock in clocks] == [True, True]
    scheduler.set_timesteps(2)
    assert [clock.starting for clock in clocks] == [True, True]
    clocks.pop(leaver).follow(None)
    assert clocks[0].scheduler is scheduler
    scheduler.set_timesteps(3)
    assert clocks[0].rows == 3


def test_a_pinned_clock_holds():
    scheduler = diffusers.EulerDiscreteScheduler()
    heard = Heard(scheduler)
    scheduler.set_timesteps(3)
    heard.clock.start()
    heard.clock.pin(2)
    step(scheduler)
    assert heard.clock.step == 2
    heard.clock.pin(None)
    assert heard.clock.step is None
