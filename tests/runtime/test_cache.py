"""A schedule on a real pipeline: the images it means, the calls it takes, the memory it needs."""

from __future__ import annotations

from collections import Counter

import diffusers
import numpy as np
import pytest
import torch

import ecad
from ecad.runtime.kept_outputs import size_of
from ecad.schedules.plan import executed, make_plan
from ecad.sites.discovery import discover
from ecad.sites.readers import readers, running_order

# Each scheduler and the rows that it takes for a given number of steps.
SCHEDULERS = {
    "dpm++": (diffusers.DPMSolverMultistepScheduler, lambda steps: steps),
    "ddim": (diffusers.DDIMScheduler, lambda steps: steps),
    "heun": (diffusers.HeunDiscreteScheduler, lambda steps: 2 * steps - 1),
    "euler": (diffusers.EulerDiscreteScheduler, lambda steps: steps),
    "lcm": (diffusers.LCMScheduler, lambda steps: steps),
}


def every_site(tiny, value: bool, steps: int = 4):
    return tiny.schedule(np.full((steps, len(tiny.components)), value))


def test_all_ones_changes_nothing(tiny):
    bare = tiny.run()
    with ecad.cached(tiny.pipe, every_site(tiny, True)) as run:
        assert torch.equal(tiny.run(), bare)
    assert run.stats.computed == 4 * len(tiny.components) * tiny.passes
    assert (run.stats.reused, run.stats.skipped, run.stats.peak_cached_bytes) == (0, 0, 0)


@pytest.mark.parametrize("seed", range(6))
def test_a_schedule_means_what_the_interpreter_says(tiny, seed):
    schedule = tiny.random_schedule(seed, steps=5, share=0.2 + 0.1 * seed)
    bare, expected = tiny.run(5), tiny.reference(schedule)
    with ecad.cached(tiny.pipe, schedule):
        cached = tiny.run(5)
    assert torch.equal(cached, expected)
    assert not torch.equal(cached, bare)


def test_columns_may_stand_in_any_order():
    torch.manual_seed(0)
    dit = diffusers.DiTTransformer2DModel(2, 8, in_channels=4, num_layers=2, norm_num_groups=1, sample_size=8)
    sites = [(site.block, site.component) for site in discover(dit)]
    bits = np.random.default_rng(0).random((3, len(sites))) < 0.5
    results = []
    for order in (range(len(sites)), [3, 2, 1, 0]):
        schedule = ecad.CacheSchedule(bits[:, order], tuple(sites[site] for site in order))
        with ecad.cached(dit, schedule) as run, torch.no_grad():
            for step in range(3):
                with run.step(step):
                    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(step))
                    results.append(dit.eval()(latents, torch.tensor([step]), torch.tensor([1])).sample)
    assert all(torch.equal(one, other) for one, other in zip(results[:3], results[3:], strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_calls_are_those_that_were_planned_and_counted(tiny, seed):
    schedule = tiny.random_schedule(seed)
    calls = tiny.count_calls()
    with ecad.cached(tiny.pipe, schedule) as run:
        tiny.run()
    runs = executed(schedule.recompute, readers(schedule.sites))
    expected = Counter(dict(zip(schedule.sites, runs.sum(axis=0) * tiny.passes, strict=True)))
    assert calls == expected
    assert run.stats.computed == calls.total()
    assert run.stats.computed + run.stats.reused + run.stats.skipped == schedule.recompute.size * tiny.passes
    skipped = make_plan(schedule.recompute, readers(schedule.sites)).counts()[:, 2].sum() * tiny.passes
    assert run.stats.skipped == skipped
    assert (skipped > 0) == (len(tiny.components) > 9)  # PixArt has no dead work, these FLUX schedules have


@pytest.mark.parametrize("seed", range(3))
def test_no_more_is_kept_than_the_schedule_needs(tiny, seed):
    schedule = tiny.random_schedule(seed)
    sizes = [size_of(output) for output in outputs_of_one_forward(tiny)]
    with ecad.cached(tiny.pipe, schedule) as run:
        held = bytes_held_during(tiny, run)
    bound = make_plan(schedule.recompute, readers(schedule.sites)).peak(
        np.array([sizes] * tiny.passes), running_order(schedule.sites)
    )
    assert max(held) == run.stats.peak_cached_bytes == bound
    assert held[-1] == run.stats.cached_bytes == 0


def outputs_of_one_forward(tiny) -> list:
    outputs = {}
    handles = [
        module.register_forward_hook(lambda _m, _a, output, site=site: outputs.update({site: output}))
        for site, module in tiny.components.items()
    ]
    tiny.run(2)
    for handle in handles:
        handle.remove()
    return [outputs[site] for site in tiny.components]


def bytes_held_during(tiny, run) -> list[int]:
    """The bytes reachable from the cache after every call of every component, and at the end."""
    held = []

    def look(*_):
        passes = [one for generation in run._running for of in generation._passes.values() for one in of]
        held.append(sum(size_of(kept._output) for one in passes for site in one._kept for kept in site))

    handles = [module.register_forward_hook(look) for module in tiny.components.values()]
    tiny.run()
    look()
    for handle in handles:
        handle.remove()
    return held


def test_every_generation_starts_anew(tiny):
    schedule = tiny.random_schedule()
    with ecad.cached(tiny.pipe, schedule) as run:
        first = tiny.run()
        once = run.stats.computed, run.stats.reused, run.stats.skipped
        assert torch.equal(tiny.run(), first)
    assert (run.stats.computed, run.stats.reused, run.stats.skipped) == tuple(2 * count for count in once)


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("seed", range(2))
def test_the_clock_follows_every_scheduler(make, name, seed):
    scheduler, rows = SCHEDULERS[name]
    tiny = make.pixart(scheduler())
    schedule = tiny.random_schedule(seed, steps=rows(4))
    calls = tiny.count_calls()
    with ecad.cached(tiny.pipe, schedule):
        cached = tiny.run(4)
    assert calls == Counter(dict(zip(schedule.sites, executed(schedule.recompute).sum(axis=0), strict=True)))
    for module in tiny.components.values():
        del module.forward
    run = tiny.run
    tiny.run = lambda steps: run(4)
    assert torch.equal(cached, tiny.reference(schedule))


def test_heun_on_flow_matching_runs_the_schedule_too(make):
    tiny = make.flux(diffusers.FlowMatchHeunDiscreteScheduler())
    tiny.pipe.scheduler.set_timesteps(4)
    rows = len(tiny.pipe.scheduler.timesteps)
    assert rows == 7
    schedule = tiny.random_schedule(steps=rows)
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 16, 16, generator=generator)
    with ecad.cached(tiny.pipe, schedule) as run:
        tiny.pipe.scheduler.set_timesteps(4)
        denoise(tiny.pipe, latents)
    assert run.stats.computed == executed(schedule.recompute, readers(schedule.sites)).sum()


def denoise(pipe, latents: torch.Tensor, around_step=None) -> torch.Tensor:
    """A denoising loop as a user would write it."""
    generator = torch.Generator().manual_seed(1)
    text = torch.randn(len(latents), 5, 12, generator=generator)
    pooled = torch.randn(len(latents), 6, generator=generator)
    ids = {"img_ids": torch.zeros(latents.shape[1], 3), "txt_ids": torch.zeros(5, 3)}
    for index, timestep in enumerate(pipe.scheduler.timesteps):
        with torch.no_grad():
            if around_step is not None:
                with around_step(index):
                    noise = predict(pipe, latents, timestep, text, pooled, ids)
            else:
                noise = predict(pipe, latents, timestep, text, pooled, ids)
        latents = pipe.scheduler.step(noise, timestep, latents, return_dict=False)[0]
    return latents


def predict(pipe, latents, timestep, text, pooled, ids):
    timesteps = (timestep / 1000).expand(len(latents))
    guidance = torch.full((len(latents),), 3.5)
    return pipe.transformer(latents, text, pooled, timesteps, guidance=guidance, **ids, return_dict=False)[0]


def test_a_hand_written_loop_may_name_its_steps(flux):
    schedule = flux.random_schedule()
    scheduler = flux.pipe.scheduler
    latents = torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(0))
    scheduler.set_timesteps(4)
    bare = denoise(flux.pipe, latents)
    with ecad.cached(flux.pipe, schedule) as run:
        scheduler.set_timesteps(4)
        by_clock = denoise(flux.pipe, latents)
        by_hand = run.stats.computed
    handle = ecad.enable_cache(flux.pipe.transformer, schedule)
    for _ in range(2):
        scheduler.set_timesteps(4)
        assert torch.equal(denoise(flux.pipe, latents, handle.step), by_clock)
    assert handle.stats.computed == 2 * by_hand
    assert handle.stats.cached_bytes == 0
    scheduler.set_timesteps(4)
    assert torch.equal(denoise(flux.pipe, latents), bare)  # outside `step` nothing is cached
    handle.disable()
    assert not torch.equal(by_clock, bare)


def test_steps_named_by_hand_are_checked(flux):
    run = ecad.enable_cache(flux.pipe.transformer, flux.random_schedule())
    with pytest.raises(ecad.ScheduleError, match=r"\(step 4\): expected 0 to 3"), run.step(4):
        pass
    with run.step(0), run.step(1):
        pass
    with pytest.raises(ecad.EcadError, match="step 1 was entered twice"), run.step(1):
        pass


def test_plans_can_be_looked_at(flux):
    schedule = flux.random_schedule()
    run = ecad.enable_cache(flux.pipe, schedule)
    np.testing.assert_array_equal(
        run.plans["transformer"].actions, make_plan(schedule.recompute, readers(schedule.sites)).actions
    )


@pytest.mark.parametrize(
    ("path", "kind", "blocks"),
    [
        ("pixart_alpha_initial/cand_000.json", "pixart", 28),
        ("flux_initial/cand_010.json", "flux", (19, 38)),
        ("flux_every_n/recompute_all_every_003.json", "flux", (19, 38)),
    ],
)
def test_published_schedules_mean_what_the_interpreter_says(make, shared_data, path, kind, blocks):
    schedule = ecad.CacheSchedule.load(shared_data / "published-schedules" / path)
    tiny = getattr(make, kind)(blocks=blocks)
    expected, bare = tiny.reference(schedule, batch=1), tiny.run(schedule.num_steps, batch=1)
    with ecad.cached(tiny.pipe, schedule) as run:
        cached = tiny.run(schedule.num_steps, batch=1)
    assert torch.isfinite(cached).all()
    assert torch.equal(cached, expected)
    assert not torch.equal(cached, bare)
    assert run.stats.computed == executed(schedule.recompute, readers(schedule.sites)).sum()
