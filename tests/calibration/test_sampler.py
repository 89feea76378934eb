"""A sampler's step is affine: held against what the sampler makes of other outputs."""

from __future__ import annotations

import copy

import diffusers
import pytest
import torch

from ecad.calibration.sampler import affine_step, latents_of
from ecad.runtime.overrides import Around

SAMPLERS = {
    "euler": lambda: diffusers.EulerDiscreteScheduler(),
    "flow": lambda: diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    "ddim": lambda: diffusers.DDIMScheduler(clip_sample=False),
    "dpm": lambda: diffusers.DPMSolverMultistepScheduler(),
    "dpm sde": lambda: diffusers.DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++"),
    "unipc": lambda: diffusers.UniPCMultistepScheduler(),
    "pndm": lambda: diffusers.PNDMScheduler(skip_prk_steps=True),
    "heun": lambda: diffusers.HeunDiscreteScheduler(),
    "ancestral": lambda: diffusers.EulerAncestralDiscreteScheduler(),
}


@pytest.fixture(params=SAMPLERS)
def scheduler(request):
    made = SAMPLERS[request.param]()
    made.set_timesteps(6)
    return made


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_next_latents_are_base_and_coefficient_times_output_whatever_the_output(scheduler):
    latents, shape = random(2, 4, 8, 8, seed=0), (2, 4, 8, 8)
    for row, timestep in enumerate(scheduler.timesteps):
        output, other = random(*shape, seed=row + 1), random(*shape, seed=row + 100)
        noise = {"generator": torch.Generator().manual_seed(row)} if takes_noise(scheduler) else {}
        base, coefficient = affine_step(scheduler, output, (timestep, latents), noise)
        twin = copy.deepcopy(scheduler)
        torch.random.manual_seed(row)
        tried = latents_of(twin.step(other, timestep, latents, **fresh(noise)))
        torch.testing.assert_close(base + coefficient * other, tried, atol=1e-4, rtol=1e-4)
        latents = latents_of(scheduler.step(output, timestep, latents, **noise))


def takes_noise(scheduler) -> bool:
    return "sde" in str(scheduler.config.get("algorithm_type")) or "Ancestral" in type(scheduler).__name__


def fresh(noise):
    return {name: one.clone_state() for name, one in noise.items()}


def test_trying_changes_neither_the_scheduler_nor_what_watches_it_nor_the_noise(scheduler):
    seen = []

    def see(step, args, kwargs):
        seen.append(args)
        return step(*args, **kwargs)

    latents, output, timestep = random(1, 4, 4, 4, seed=0), random(1, 4, 4, 4, seed=1), scheduler.timesteps[0]
    watcher = Around(scheduler, "step", see)
    generator = torch.Generator().manual_seed(3)
    noise = {"generator": generator} if takes_noise(scheduler) else {}
    before, state, globally = copy.deepcopy(scheduler), generator.get_state(), torch.random.get_rng_state()
    affine_step(scheduler, output, (timestep, latents), noise)
    assert not seen
    assert torch.equal(generator.get_state(), state)
    assert torch.equal(torch.random.get_rng_state(), globally)
    expected = latents_of(before.step(output, timestep, latents, **fresh(noise)))
    torch.random.set_rng_state(globally)
    assert torch.equal(latents_of(scheduler.step(output, timestep, latents, **noise)), expected)
    watcher.remove()


def test_a_step_that_clips_is_refused():
    scheduler = diffusers.DDIMScheduler(clip_sample=True, clip_sample_range=1.0)
    scheduler.set_timesteps(6)
    with pytest.raises(ValueError, match="DDIMScheduler: the step is not affine"):
        affine_step(scheduler, random(1, 4, 4, 4, seed=1), (scheduler.timesteps[-2], random(1, 4, 4, 4, seed=0)), {})
