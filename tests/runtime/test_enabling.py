"""Enabling, disabling and refusing; several pipelines and several denoisers."""

from __future__ import annotations

import warnings
from dataclasses import replace

import diffusers
import numpy as np
import pytest
import torch
from whole_steps import products_of

import ecad
from ecad.runtime import planned
from ecad.runtime.compatibility import layout_of
from ecad.schedules import heuristics
from ecad.schedules.front import Point
from ecad.schedules.plan import executed, make_plan
from ecad.schedules.provenance import Provenance
from ecad.sites.discovery import discover
from ecad.sites.several import joint_sites


def test_disabling_leaves_no_trace(tiny):
    bare, before = tiny.run(), tiny.snapshot()  # a first run leaves traces of its own
    state = tiny.pipe.transformer.state_dict().keys()
    run = ecad.enable_cache(tiny.pipe, tiny.random_schedule())
    assert tiny.pipe.transformer.state_dict().keys() == state
    assert tiny.snapshot()["tree"] == before["tree"]
    tiny.run()
    run.disable()
    assert tiny.snapshot() == before
    assert torch.equal(tiny.run(), bare)
    run.disable()
    ecad.disable_cache(tiny.pipe)
    assert tiny.snapshot() == before


def test_a_context_disables_after_an_error(pixart):
    before = pixart.snapshot()
    with pytest.raises(ZeroDivisionError), ecad.cached(pixart.pipe, pixart.random_schedule()):
        raise ZeroDivisionError
    assert pixart.snapshot() == before


def test_disabling_in_the_middle_of_a_generation(flux):
    bare = flux.run()
    run = ecad.enable_cache(flux.pipe, flux.random_schedule())
    flux.run(callback_on_step_end=lambda *_: run.disable() or {})
    assert torch.equal(flux.run(), bare)
    assert run.stats.cached_bytes == 0
    assert run.stats.peak_cached_bytes > 0


def test_the_plan_is_made_by_enabling_and_not_while_images_are(pixart, monkeypatch):
    made = []
    monkeypatch.setattr(planned, "make_plan", lambda *rest: made.append(make_plan(*rest)) or made[-1])
    with ecad.cached(pixart.pipe, pixart.random_schedule()) as run:
        assert len(made) == 1
        pixart.run()
        assert len(made) == 1
        assert run.plans["transformer"] is made[0]


def test_enabling_twice_replaces(tiny):
    first, second = tiny.random_schedule(1), tiny.random_schedule(2)
    expected = tiny.reference(second)
    before = tiny.snapshot()
    old = ecad.enable_cache(tiny.pipe, first)
    run = ecad.enable_cache(tiny.pipe, second)
    assert torch.equal(tiny.run(), expected)
    old.disable()  # a stale handle holds nothing any more
    once = run.stats.computed
    assert torch.equal(tiny.run(), expected)
    assert run.stats.computed == 2 * once
    assert (old.stats.computed, once) == (0, tiny.expected_calls(second))
    ecad.disable_cache(tiny.pipe)
    assert tiny.snapshot() == before


def test_a_refused_schedule_leaves_the_enabled_one(pixart):
    schedule = pixart.random_schedule()
    run = ecad.enable_cache(pixart.pipe, schedule)
    with pytest.raises(ecad.ScheduleError):
        ecad.enable_cache(pixart.pipe, ecad.CacheSchedule([[True]], (("0", "ff"),)))
    pixart.run()
    assert run.stats.computed == pixart.expected_calls(schedule)


def test_steps_that_do_not_match_exactly_are_refused_before_anything_runs(tiny):
    schedule = tiny.random_schedule(steps=4)
    expected, bare = tiny.reference(schedule), tiny.run(6)
    calls = tiny.count_calls()
    run = ecad.enable_cache(tiny.pipe, schedule, exact=True)
    with pytest.raises(ecad.ScheduleError, match=r"'seed 0' does not fit this run.* expected 4 rows, .* found 6"):
        tiny.run(6)
    with pytest.raises(ecad.ScheduleError):
        tiny.pipe.scheduler.set_timesteps(7) if tiny.passes == 1 else tiny.run(7)
    assert calls.total() == 0
    assert torch.equal(tiny.run(4), expected)
    run.disable()
    assert torch.equal(tiny.run(6), bare)


def test_a_refusal_names_the_number_of_steps_that_makes_the_schedules_rows(make):
    heun = make.pixart(diffusers.HeunDiscreteScheduler())
    ecad.enable_cache(heun.pipe, heun.random_schedule(steps=7), exact=True)
    with pytest.raises(ecad.ScheduleError, match=r"the pipeline with 4 steps, or use schedule.resample\(steps=9\)"):
        heun.run(steps=5)
    heun.run(steps=4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda sites: sites[:-3],
            r"\(block single_1, component single_attn\): expected single_attn, .* 4 blocks, found no such .* 3 blocks",
        ),
        (
            lambda sites: [site for site in sites if site[1] != "full_ff"],
            r"\(block 0, component full_ff\): expected full_attn, full_ff, .*, found full_attn, full_ff_context",
        ),
        (
            lambda sites: (*sites, *(("single_2", name) for _, name in sites[-3:])),
            r"\(block single_2, component single_attn\): expected no such block among 4 blocks, found single_attn, ",
        ),
    ],
)
def test_other_sites_are_refused(flux, change, message):
    sites = change(tuple(flux.components))
    schedule = ecad.CacheSchedule(np.ones((4, len(sites)), dtype=bool), sites)
    before = flux.snapshot()
    with pytest.raises(ecad.ScheduleError, match=message):
        ecad.enable_cache(flux.pipe, schedule)
    assert flux.snapshot() == before


def test_a_schedule_of_another_family_is_refused_in_words(make):
    with pytest.raises(ecad.ScheduleError) as caught:
        ecad.enable_cache(make.flux().pipe, make.pixart().random_schedule())
    assert str(caught.value) == (
        "schedule 'seed 0' does not fit FluxTransformer2DModel (block 0, component full_attn): "
        "expected full_attn, full_ff, full_ff_context among 4 blocks, found attn1, attn2, ff among 3 blocks; "
        "use one that was made for this model, or start one with CacheSchedule.for_model"
    )


def test_a_custom_computation_is_refused_not_ignored(pixart):
    schedule = pixart.random_schedule().replace(
        custom_compute={(2, "1", "custom_compute_attn"): {"name": "average", "kwargs": {}}}
    )
    with pytest.raises(
        ecad.ScheduleError, match=r"\(step 002, block 1, component custom_compute_attn\): .*found average"
    ):
        ecad.enable_cache(pixart.pipe, schedule)


def test_a_pipeline_without_a_transformer_is_refused():
    with pytest.raises(ecad.EcadError, match="object has no denoiser and cannot be cached; pass"):
        ecad.enable_cache(object(), ecad.CacheSchedule([[True]], (("0", "ff"),)))


def test_two_pipelines_with_two_schedules_at_once(make):
    one, two = make.pixart(seed=1), make.pixart(seed=2)
    first, second = one.random_schedule(1), two.random_schedule(2, steps=6)
    expected = one.reference(first), two.reference(second)
    runs = []
    with ecad.cached(one.pipe, first) as run_one, ecad.cached(two.pipe, second) as run_two:
        # One generation inside the other.
        one.pipe.transformer.register_forward_hook(lambda *_: runs.append(two.run(6)) if not runs else None)
        assert torch.equal(one.run(), expected[0])
        assert torch.equal(runs[0], expected[1])
    assert run_one.stats.computed == one.expected_calls(first)
    assert run_two.stats.computed == two.expected_calls(second)


def test_two_pipelines_on_one_scheduler_object(make):
    scheduler = diffusers.DPMSolverMultistepScheduler()
    one, two = make.pixart(scheduler, seed=1), make.pixart(scheduler, seed=2)
    methods = {name for name, value in vars(scheduler).items() if callable(value)}
    first, second = one.random_schedule(1, steps=4), two.random_schedule(2, steps=6)
    expected = one.reference(first), two.reference(second)
    handle = ecad.enable_cache(one.pipe, first, exact=True)
    ecad.enable_cache(two.pipe, second, exact=True)
    assert torch.equal(one.run(4), expected[0])
    assert torch.equal(two.run(6), expected[1])
    with pytest.raises(ecad.ScheduleError, match=r"expected 4 rows, .* found 6"):
        one.run(6)
    handle.disable()
    assert torch.equal(two.run(6), expected[1])
    ecad.disable_cache(two.pipe)
    assert {name for name, value in vars(scheduler).items() if callable(value)} == methods


def test_a_pipeline_that_shares_the_transformer_shares_its_cache(flux):
    schedule = flux.random_schedule()
    run = ecad.enable_cache(flux.pipe, schedule)
    expected = flux.run()
    twin = diffusers.FluxPipeline(**flux.pipe.components)
    twin.set_progress_bar_config(disable=True)
    original, flux.pipe = flux.pipe, twin
    assert torch.equal(flux.run(), expected)
    assert run.stats.computed == 2 * flux.expected_calls(schedule)
    ecad.disable_cache(twin)
    assert "_ecad_run" not in vars(original)


class TwoDenoisers(diffusers.DiffusionPipeline):
    """The loop of Wan 2.2: one denoiser for high noise, then another, on one scheduler."""

    def __init__(self, transformer, transformer_2, scheduler) -> None:
        super().__init__()
        self.register_modules(transformer=transformer, transformer_2=transformer_2, scheduler=scheduler)

    @torch.no_grad()
    def __call__(self, steps: int, switch: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        latents = torch.randn(1, 4, 8, 8, generator=generator)
        text = torch.randn(1, 5, 12, generator=generator)
        self.scheduler.set_timesteps(steps)
        for index, timestep in enumerate(self.scheduler.timesteps):
            denoiser = self.transformer if index < switch else self.transformer_2
            conditions = {"resolution": None, "aspect_ratio": None}
            noise = denoiser(latents, text, timestep[None], conditions, return_dict=False)[0]
            latents = self.scheduler.step(noise.chunk(2, dim=1)[0], timestep, latents, return_dict=False)[0]
        return latents


def test_two_denoisers_have_a_schedule_each_and_one_clock(make):
    tinies = make.pixart(seed=1), make.pixart(seed=2, blocks=2)
    pipe = TwoDenoisers(*(tiny.pipe.transformer for tiny in tinies), diffusers.DDIMScheduler())
    schedules = [tiny.random_schedule(seed, steps=6) for seed, tiny in enumerate(tinies)]
    calls = [tiny.count_calls() for tiny in tinies]
    with pytest.raises(ecad.ScheduleError, match=r"several denoisers \(transformer, transformer_2\).*give a dict"):
        ecad.enable_cache(pipe, schedules[0])
    with pytest.raises(ecad.EcadError, match="no denoiser 'unet'"):
        ecad.enable_cache(pipe, {"unet": schedules[0]})
    with pytest.raises(ecad.ScheduleError, match=r"share its clock: .*found transformer 6, transformer_2 5"):
        ecad.enable_cache(pipe, {"transformer": schedules[0], "transformer_2": tinies[1].random_schedule(steps=5)})
    with ecad.cached(pipe, {"transformer": schedules[0], "transformer_2": schedules[1]}) as run:
        pipe(6, switch=3)
    # The second denoiser's first visit is in the fourth row.
    expected = executed(schedules[0].recompute[:3]).sum(), executed(schedules[1].recompute[3:]).sum()
    assert tuple(count.total() for count in calls) == expected
    assert run.stats.computed == sum(expected)
    assert run.stats.cached_bytes == 0
    for count in calls:
        count.clear()
    with ecad.cached(pipe, {"transformer_2": schedules[1]}):
        pipe(6, switch=3)
    assert [count.total() for count in calls] == [27, expected[1]]


def test_a_front_holds_a_schedule_for_each_denoiser(make, tmp_path):
    tinies = make.pixart(seed=1), make.pixart(seed=2, blocks=2)
    names = "transformer", "transformer_2"
    pipe = TwoDenoisers(*(tiny.pipe.transformer for tiny in tinies), diffusers.DDIMScheduler())
    points, expected = [], []
    for n in (2, 3):
        # The first extrapolates, as its own outputs tell, and the second does not.
        schedules = [heuristics.every_n(tuple(tiny.components), 8, n) for tiny in tinies]
        schedules[0] = schedules[0].replace(forecast=True, output_products=products_of(8))
        each = dict(zip(names, schedules, strict=True))
        points.append(Point.of_denoisers(each, 1 / n, -float(n)))
        with ecad.cached(pipe, each):
            expected.append(pipe(8, switch=4))
    with ecad.cached(pipe, points[0].schedule):
        assert not torch.equal(pipe(8, switch=4), expected[0])  # both together say less than each
    assert not torch.equal(*expected)
    ecad.Front("two", points).save(tmp_path / "front.json")
    front = ecad.Front.load(tmp_path / "front.json")
    assert front == ecad.Front("two", points)
    run = ecad.enable_cache(pipe, front, speedup=2)
    assert torch.equal(pipe(8, switch=4), expected[0])
    run.switch(speedup=3)
    assert torch.equal(pipe(8, switch=4), expected[1])
    run.switch(quality=-2)
    assert torch.equal(pipe(8, switch=4), expected[0])
    assert front.pick(speedup=2).sites == joint_sites({name: each[name].sites for name in names})


def test_what_denoisers_do_together_is_what_each_does(make):
    half, third = (heuristics.every_n(tuple(make.pixart().components), 6, n) for n in (2, 3))
    point = Point.of_denoisers({"a": half, "b": third}, 0.5, 1.0)
    with pytest.raises(ecad.EcadError, match="'every_2' is not what the schedules of its denoisers make together"):
        Point(point.schedule, 0.5, 1.0, each={"a": half, "b": half})
    with pytest.raises(ecad.ScheduleError, match=r"equally many rows.*found a 6, b 5"):
        Point.of_denoisers({"a": half, "b": third.resample(5)}, 0.5, 1.0)


def test_one_schedule_may_hold_those_of_two_denoisers(make):
    tinies = make.pixart(seed=1), make.pixart(seed=2, blocks=2)
    names = "transformer", "transformer_2"
    pipe = TwoDenoisers(*(tiny.pipe.transformer for tiny in tinies), diffusers.DDIMScheduler())
    schedules = {name: tiny.random_schedule(steps=6) for name, tiny in zip(names, tinies, strict=True)}
    sites = joint_sites({name: schedule.sites for name, schedule in schedules.items()})
    modules = [tiny.pipe.transformer for tiny in tinies]
    layouts = [layout_of(module, discover(module)) for module in modules]
    origin = Provenance("A + B", " + ".join(layouts), "1 + 2", sampler="DDIMScheduler")
    bits = np.hstack([schedule.recompute for schedule in schedules.values()])
    joint = ecad.CacheSchedule(bits, sites, attributes={"provenance": origin.to_json()})
    with ecad.cached(pipe, schedules) as run:
        pipe(6, switch=3)
    with warnings.catch_warnings(record=True) as told, ecad.cached(pipe, joint) as joint_run:
        warnings.simplefilter("always")
        pipe(6, switch=3)
    assert joint_run.stats == run.stats
    # Each denoiser is held against its own part of the provenance; their configurations are made up here.
    assert [str(one.message).count("another variant of the model") for one in told] == [1, 1]
    assert ["expected 1," in str(told[0].message), "expected 2," in str(told[1].message)] == [True, True]
    front = ecad.Front("both", [Point(joint.replace(attributes={}), 0.5, 1.0)])
    with ecad.cached(pipe, front, speedup=2) as run:
        run.switch()
        run.switch(speedup=2)
        pipe(6, switch=3)
        assert run.stats == joint_run.stats
    swapped = replace(origin, layout=" + ".join(reversed(layouts)))
    with pytest.raises(ecad.ScheduleError, match="another layout"):
        ecad.enable_cache(pipe, joint.replace(attributes={"provenance": swapped.to_json()}))
