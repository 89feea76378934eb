"""Counting rows off a scheduler."""

from __future__ import annotations

from contextlib import nullcontext

import diffusers
import numpy as np
import pytest
import torch
from reference import interpret
from tiny_transformers import transformer
from zoo import STEPS, ZOO, Specimen, noise

import ecad
from ecad.runtime.clock import StepClock
from ecad.schedules import CacheSchedule


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


def forwards(specimen: Specimen) -> dict[str, int]:
    """How many forwards each denoiser runs in one generation."""
    counts = dict.fromkeys(specimen.denoisers, 0)

    def count(name: str) -> None:
        counts[name] += 1

    handles = [getattr(specimen.pipe, name).register_forward_hook(lambda *_, name=name: count(name)) for name in counts]
    specimen.run()
    for handle in handles:
        handle.remove()
    return counts


def test_of_two_denoisers_each_gets_the_rows_in_which_it_runs():
    specimen = ZOO["Wan 2.2"]()
    counts = forwards(specimen)
    assert counts["transformer"] + counts["transformer_2"] == STEPS * specimen.passes
    assert min(counts.values()) > specimen.passes
    schedules = {
        name: schedule.replace(recompute=np.zeros_like(schedule.recompute))
        for name, schedule in specimen.schedules(None).items()
    }
    sites = len(specimen.components())
    with ecad.cached(specimen.pipe, schedules) as run:
        specimen.run()
    # The first row of each computes, whichever row of the generation that is.
    assert run.stats.computed == 2 * specimen.passes * sites
    assert run.stats.reused == (sum(counts.values()) - 2 * specimen.passes) * sites


def test_the_second_of_two_denoisers_may_have_no_schedule():
    specimen = ZOO["Wan 2.2"]()
    first = {"transformer": specimen.schedules(3)["transformer"]}
    expected = interpret(specimen, {**specimen.schedules(None), **first})
    with ecad.cached(specimen.pipe, first):
        assert torch.equal(specimen.run(), expected.latents)


def test_image_to_image_runs_the_last_rows_of_its_schedule():
    specimen = ZOO["FLUX.1 img2img"]()
    sites = len(specimen.components())
    assert forwards(specimen) == {"transformer": STEPS - specimen.begin}
    bits = np.zeros((STEPS, sites), bool)
    bits[STEPS - 1] = True
    with ecad.cached(specimen.pipe, CacheSchedule(bits, tuple(specimen.components()))) as run:
        specimen.run()
    assert (run.stats.computed, run.stats.reused) == (2 * sites, 0)


class Loop:
    """A hand-written loop without a scheduler: guidance as two forwards a row."""

    def __init__(self) -> None:
        self.transformer = transformer("SanaTransformer2DModel")
        self.row = lambda _: nullcontext()

    @torch.no_grad()
    def __call__(self, num_inference_steps: int, generator: torch.Generator, **_: object) -> tuple[torch.Tensor]:
        latents = torch.randn(1, 4, 8, 8, generator=generator)
        for row in range(num_inference_steps):
            timestep = torch.tensor([1000.0 - row])
            with self.row(row):
                text, empty = (self.transformer(latents, noise(1, 5, 12, seed=i), timestep).sample for i in (0, 1))
            latents = latents - 0.1 * (text + 2 * (text - empty))
        return (latents,)


def test_a_hand_written_loop_says_its_rows():
    specimen = Specimen(Loop(), {"transformer_blocks": "attn1 attn2 ff"}, {}, passes=2)
    schedules = specimen.schedules(4)
    bare, expected = specimen.run(), interpret(specimen, schedules)
    run = ecad.enable_cache(specimen.pipe.transformer, schedules["transformer"])
    assert torch.equal(specimen.run(), bare)  # nobody says which row it is
    specimen.pipe.row = run.step
    for generation in (1, 2):
        assert torch.equal(specimen.run(), expected.latents)
        assert (run.stats.computed, run.stats.reused) == (
            generation * expected.computed,
            generation * expected.reused,
        )


def test_a_pipeline_that_tells_nobody_where_it_enters_is_believed_by_its_timestep():
    scheduler = diffusers.EulerDiscreteScheduler()
    clock = Heard(scheduler).clock
    for rows_to_run, position, begin in ((3, 2, 2), (3, 0, 0), (5, 0, 0), (None, 2, 0)):
        scheduler.set_timesteps(5)
        clock.start(rows_to_run, scheduler.timesteps[position].expand(2))
        assert clock.step == begin
