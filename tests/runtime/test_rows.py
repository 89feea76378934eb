"""Which row a forward belongs to."""

from __future__ import annotations

from contextlib import nullcontext

import diffusers
import numpy as np
import pytest
import torch
from reference import interpret
from tiny_transformers import transformer
from zoo import STEPS, ZOO, Specimen, noise, pipeline, text

import ecad
from ecad.runtime.rows import SchedulerRows, SchedulerWatch, time_of
from ecad.schedules import CacheSchedule


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


def sana_sprint() -> Specimen:
    """Its sampler has one timestep more than rows: where the last one arrives."""
    model = transformer("SanaTransformer2DModel", guidance_embeds=True)
    pipe = pipeline("SanaSprintPipeline", model, diffusers.SCMScheduler())
    call = {**text("", mask="prompt_attention_mask"), "height": 256, "width": 256, "use_resolution_binning": False}
    call |= {"intermediate_timesteps": None}
    return Specimen(pipe, {"transformer_blocks": "attn1 attn2 ff"}, call)


def test_a_sampler_with_more_timesteps_than_rows():
    specimen = sana_sprint()
    schedules = specimen.schedules(1)
    expected = interpret(specimen, schedules)
    with ecad.cached(specimen.pipe, schedules) as run:
        assert torch.equal(specimen.run(), expected.latents)
    assert (run.stats.computed, run.stats.reused, run.stats.cached_bytes) == (expected.computed, expected.reused, 0)


def test_a_sampler_with_more_rows_than_steps_is_refused_before_anything_runs():
    specimen = ZOO["PixArt-alpha"]()
    specimen.pipe.scheduler = diffusers.PNDMScheduler(skip_prk_steps=True)
    ran = []
    for module in specimen.components().values():
        module.register_forward_hook(lambda *_: ran.append(None))
    with (
        ecad.cached(specimen.pipe, specimen.schedules(1), exact=True),
        pytest.raises(ecad.ScheduleError, match="found 5"),
    ):
        specimen.run()
    assert ran == []


class ImageToImage(Loop):
    """A loop that begins in the middle of its sampler's timesteps, and does not say where."""

    def __init__(self, scheduler, written) -> None:
        super().__init__()
        self.scheduler, self.written = scheduler, written

    @torch.no_grad()
    def __call__(self, num_inference_steps: int, generator: torch.Generator, **_: object) -> tuple[torch.Tensor]:
        latents = torch.randn(1, 4, 8, 8, generator=generator)
        self.scheduler.set_timesteps(2 * num_inference_steps)
        for t in self.scheduler.timesteps[num_inference_steps:]:
            noise_now = self.transformer(latents, noise(1, 5, 12), self.written(t[None])).sample
            latents = self.scheduler.step(noise_now, t, latents, generator=generator).prev_sample
        return (latents,)


@pytest.mark.parametrize("scheduler", [diffusers.DDPMScheduler, diffusers.DDIMScheduler])
@pytest.mark.parametrize("written", ["the sampler's own", "a copy"])
def test_image_to_image_that_says_nothing(scheduler, written):
    """Half of 1000 is also where timesteps that are turned round begin, so a copy costs a row."""
    pipe = ImageToImage(scheduler(), {"the sampler's own": lambda t: t, "a copy": torch.clone}[written])
    specimen = Specimen(pipe, {"transformer_blocks": "attn1 attn2 ff"}, {}, begin=STEPS)
    bits = np.zeros((2 * STEPS, len(specimen.components())), bool)
    bits[STEPS + 1] = written == "a copy"
    schedule = CacheSchedule(bits, tuple(specimen.components()))
    expected = interpret(specimen, {"transformer": schedule})
    with ecad.cached(specimen.pipe, schedule) as run:
        assert torch.equal(specimen.run(), expected.latents)
    assert (run.stats.computed, run.stats.reused, run.stats.cached_bytes) == (expected.computed, expected.reused, 0)


class Unstepped(Loop):
    """A loop with a sampler of its own, which takes only its timesteps from the pipeline's."""

    def __init__(self, written) -> None:
        super().__init__()
        self.scheduler, self.written = diffusers.FlowMatchEulerDiscreteScheduler(), written

    @torch.no_grad()
    def __call__(self, num_inference_steps: int, generator: torch.Generator, **_: object) -> tuple[torch.Tensor]:
        latents = torch.randn(1, 4, 8, 8, generator=generator)
        self.scheduler.set_timesteps(num_inference_steps)
        for t in self.scheduler.timesteps:
            latents = latents - 0.1 * self.transformer(latents, noise(1, 5, 12), self.written(t[None])).sample
        return (latents,)


@pytest.mark.parametrize("name", ["transformer"])
def test_a_scheduler_that_stands_still_is_looked_up_or_refused(name):
    specimen = Specimen(Unstepped(lambda t: t), {"transformer_blocks": "attn1 attn2 ff"}, {})
    schedules = specimen.schedules(3)
    expected = interpret(specimen, schedules)
    with ecad.cached(specimen.pipe, schedules[name]):
        assert torch.equal(specimen.run(), expected.latents)
    specimen.pipe.written = lambda t: t.sqrt() + 7
    with ecad.cached(specimen.pipe, schedules[name]) as run, pytest.raises(ecad.EcadError, match="stands still"):
        specimen.run()
    assert run.stats.cached_bytes == 0
