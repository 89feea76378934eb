"""Which rows the denoisers of a pipeline run in, and a loop of one's own."""

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
from ecad.schedules import CacheSchedule


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
