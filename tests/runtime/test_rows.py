"""Which row of a sampler a forward belongs to."""

from __future__ import annotations

import diffusers
import pytest
import torch
from reference import interpret
from zoo import STEPS, ZOO

import ecad
from ecad.runtime.rows import SchedulerRows, SchedulerWatch, time_of


def step(scheduler) -> None:
    timestep = scheduler.timesteps[getattr(scheduler, "step_index", None) or 0]
    scheduler.step(torch.zeros(1, 4, 2, 2), timestep, torch.zeros(1, 4, 2, 2))


def begun(scheduler, steps=5, **how) -> SchedulerRows:
    scheduler.set_timesteps(steps, **how)
    return SchedulerRows(scheduler)


WRITTEN = {
    "whole": lambda scheduler, t: t,
    "a fraction": lambda scheduler, t: t / 1000,
    "in half precision": lambda scheduler, t: t.to(torch.bfloat16) / 1000,
    "turned round": lambda scheduler, t: 1 - t / 1000,
    "turned round, whole": lambda scheduler, t: (1000 - t).expand(3),
    "one a token": lambda scheduler, t: torch.cat([torch.zeros(40), t.expand(40)]),
    "cut": lambda scheduler, t: t.long(),
    "in a way that nobody knows": lambda scheduler, t: t.log().expand(2),
    "not at all": lambda scheduler, t: None,
}


@pytest.mark.parametrize("written", WRITTEN)
def test_every_row_is_told_however_its_timestep_is_written(written):
    scheduler = diffusers.EulerDiscreteScheduler()
    rows, told = begun(scheduler), []
    for timestep in scheduler.timesteps:
        told += [rows.row_of(time_of(WRITTEN[written](scheduler, timestep))) for _ in range(2)]
        step(scheduler)
    assert told == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert rows.row_of(time_of(WRITTEN[written](scheduler, timestep))) is None  # it is over


@pytest.mark.parametrize("written", [name for name in WRITTEN if name != "not at all"])
def test_a_timestep_of_another_row_is_of_no_row(written):
    scheduler = diffusers.EulerDiscreteScheduler()
    rows = begun(scheduler)
    times = [time_of(WRITTEN[written](scheduler, timestep)) for timestep in scheduler.timesteps]
    assert rows.row_of(times[0]) == 0
    step(scheduler)
    assert rows.row_of(times[1]) == 1
    step(scheduler)
    assert rows.row_of(times[0]) is None
    assert rows.row_of(times[2]) == 2
    assert rows.row_of(times[1]) is None


def test_a_second_order_sampler_takes_two_rows_a_step():
    for scheduler in (diffusers.HeunDiscreteScheduler(), diffusers.KDPM2DiscreteScheduler()):
        rows, told = begun(scheduler, 4), []
        for timestep in scheduler.timesteps:
            told.append(rows.row_of(time_of(timestep)))
            step(scheduler)
        assert told == list(range(7))


@pytest.mark.parametrize("says", [True, False])
def test_image_to_image_begins_in_the_middle(says):
    scheduler = diffusers.EulerDiscreteScheduler()
    rows = begun(scheduler)
    if says:
        scheduler.set_begin_index(3)
    assert rows.row_of(time_of(scheduler.timesteps[3])) == 3
    scheduler.step(torch.zeros(1, 4, 2, 2), scheduler.timesteps[3], torch.zeros(1, 4, 2, 2))
    assert rows.row_of(time_of(scheduler.timesteps[4])) == 4
    assert rows.row_of(time_of(scheduler.timesteps[3])) is None


@pytest.mark.parametrize("kind", [diffusers.DDIMScheduler, diffusers.DDPMScheduler, diffusers.PNDMScheduler])
def test_a_sampler_without_an_index_is_counted(kind):
    scheduler = kind()
    watch = SchedulerWatch(lambda: None)
    watch.follow(scheduler)
    scheduler.set_timesteps(4)
    rows, told = watch.begin(), []
    for timestep in scheduler.timesteps:
        told.append(rows.row_of(time_of(timestep)))
        scheduler.step(torch.zeros(1, 4, 2, 2), timestep, torch.zeros(1, 4, 2, 2))
    assert told == list(range(len(scheduler.timesteps)))
    watch.follow(None)
    assert not {"step", "set_timesteps"} & vars(scheduler).keys()


@pytest.mark.parametrize("rows_to_run", [2, None])
@pytest.mark.parametrize("written", ["the sampler's own", "a copy"])
def test_a_timestep_that_might_be_of_two_rows(written, rows_to_run):
    """250 is the third row, and the first of timesteps that are turned round."""
    scheduler = diffusers.DDIMScheduler()
    watch = SchedulerWatch(lambda: None)
    watch.follow(scheduler)
    scheduler.set_timesteps(4)
    rows, told = watch.begin(lambda: rows_to_run), []
    assert scheduler.timesteps.tolist() == [750, 500, 250, 0]
    for timestep in scheduler.timesteps[2:]:
        told.append(rows.row_of(time_of(timestep.expand(2) if written != "a copy" else timestep.clone())))
        scheduler.step(torch.zeros(1, 4, 2, 2), timestep, torch.zeros(1, 4, 2, 2))
    # Of a copy nobody knows which it is, unless the pipeline says how many rows it runs. Row 0 is a guess that computes
    # everything, and the first step corrects it.
    assert told == [0 if (written, rows_to_run) == ("a copy", None) else 2, 3]


@pytest.mark.parametrize("place", range(4))
def test_a_timestep_of_the_sampler_s_own_is_known_by_where_it_lies(place):
    timesteps = torch.tensor([9, 5, 5, 1])
    same = timesteps[place]
    assert [time_of(one).place_in(timesteps) for one in (same, same[None], same.expand(2, 3))] == [place] * 3
    others = (same.clone(), same + 0, same.float(), timesteps, timesteps[1:3], 5, torch.tensor([9, 5, 5, 1])[place])
    assert [time_of(one).place_in(timesteps) for one in others] == [None] * 7
    assert time_of(same).place_in(timesteps[::2]) == {0: 0, 2: 1}.get(place)


def test_of_equal_timesteps_the_one_that_is_given_tells_the_row():
    scheduler = diffusers.PNDMScheduler(skip_prk_steps=True, steps_offset=1)
    watch = SchedulerWatch(lambda: None)
    watch.follow(scheduler)
    scheduler.set_timesteps(4)
    rows, told = watch.begin(), []
    assert scheduler.timesteps.tolist() == [751, 501, 501, 251, 1]
    for timestep in scheduler.timesteps[1:]:  # image-to-image
        told.append(rows.row_of(time_of(timestep)))
        scheduler.step(torch.zeros(1, 4, 2, 2), timestep, torch.zeros(1, 4, 2, 2))
    assert told == [1, 2, 3, 4]


def test_a_timestep_of_the_sampler_s_own_is_not_read():
    scheduler = diffusers.HeunDiscreteScheduler()
    rows, told = begun(scheduler, 4), []
    for timestep in scheduler.timesteps:
        time = time_of(timestep.expand(2))
        told += [rows.row_of(time), "numbers" in vars(time)]
        step(scheduler)
    assert told == [part for row in range(7) for part in (row, False)]


def test_a_sampler_that_is_stepped_twice_a_row_and_set_back():
    scheduler = diffusers.EulerDiscreteScheduler()
    rows, told = begun(scheduler), []
    for timestep in scheduler.timesteps:
        told.append(rows.row_of(time_of(timestep)))
        step(scheduler)
        scheduler._step_index -= 1
        step(scheduler)
    assert told == list(range(5))


def test_a_sampler_whose_copies_are_stepped_is_asked_for_the_timestep():
    scheduler = diffusers.UniPCMultistepScheduler()
    rows = begun(scheduler)
    assert [rows.row_of(time_of(timestep)) for timestep in scheduler.timesteps] == list(range(5))
    assert not rows.has_moved


def test_two_watches_on_one_scheduler_know_of_each_other():
    scheduler, heard = diffusers.EulerDiscreteScheduler(), []
    one, other = (SchedulerWatch(lambda name=name: heard.append(name)) for name in "ab")
    one.follow(scheduler)
    assert not one.is_shared
    other.follow(scheduler)
    assert one.is_shared
    assert other.is_shared
    scheduler.set_timesteps(2)
    assert heard == ["a", "b"]
    one.follow(None)
    scheduler.set_timesteps(2)
    assert heard == ["a", "b", "b"]
    other.follow(None)
    assert "set_timesteps" not in vars(scheduler)


ROWS = {
    "DPM++": (diffusers.DPMSolverMultistepScheduler, "PixArt-alpha", STEPS),
    "DPM++ singlestep": (diffusers.DPMSolverSinglestepScheduler, "PixArt-alpha", STEPS),
    "DDIM": (diffusers.DDIMScheduler, "PixArt-alpha", STEPS),
    "Euler": (diffusers.EulerDiscreteScheduler, "PixArt-alpha", STEPS),
    "Euler ancestral": (diffusers.EulerAncestralDiscreteScheduler, "PixArt-alpha", STEPS),
    "Heun": (diffusers.HeunDiscreteScheduler, "PixArt-alpha", 2 * STEPS - 1),
    "LCM": (diffusers.LCMScheduler, "PixArt-alpha", STEPS),
    "UniPC": (diffusers.UniPCMultistepScheduler, "PixArt-alpha", STEPS),
    "flow-match Euler": (diffusers.FlowMatchEulerDiscreteScheduler, "Stable Diffusion 3.5", STEPS),
    "flow-match Heun": (diffusers.FlowMatchHeunDiscreteScheduler, "Stable Diffusion 3.5", 2 * STEPS - 1),
    "flow-match LCM": (diffusers.FlowMatchLCMScheduler, "Stable Diffusion 3.5", STEPS),
}


@pytest.mark.parametrize("name", ROWS)
def test_every_scheduler_is_one_row_a_step_of_its_own(name):
    scheduler, family, rows = ROWS[name]
    specimen = ZOO[family]()
    specimen.pipe.scheduler, specimen.rows = scheduler(), rows
    schedules = specimen.schedules(2)
    expected = interpret(specimen, schedules)
    with ecad.cached(specimen.pipe, schedules) as run:
        for _ in range(2):
            assert torch.equal(specimen.run(), expected.latents)
    assert run.stats.computed == 2 * expected.computed
