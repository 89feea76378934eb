"""One knob: a front's schedules on one pipeline, switched between generations; and runs of another number of steps."""

from __future__ import annotations

import warnings

import diffusers
import pytest
import torch

import ecad
from ecad.runtime import planned
from ecad.runtime.hooks import ComponentHook
from ecad.runtime.overrides import Override
from ecad.runtime.replay import recordings
from ecad.schedules import heuristics
from ecad.schedules.front import Point


def a_front(tiny, steps=4):
    """Every step, every second, every third step, the last two of them forecast."""
    sites = tuple(tiny.components)
    made = [heuristics.every_n(sites, steps, n).replace(forecast=n > 1) for n in (1, 2, 3)]
    return ecad.Front("tiny", [Point(one, 1 / n, -float(n)) for n, one in enumerate(made, start=1)])


def images_of(tiny, front):
    """Under each schedule, enabled by itself."""
    images = {}
    for n, schedule in zip((3, 2, 1), front.schedules, strict=True):
        with ecad.cached(tiny.pipe, schedule):
            images[n] = tiny.run()
    return images


def test_a_front_is_enabled_at_one_speedup_or_quality(tiny, tmp_path):
    front = a_front(tiny)
    expected = images_of(tiny, front)
    assert not torch.equal(expected[2], expected[3])
    front.save(tmp_path / "front.json")
    for knob in ({"speedup": 2.0}, {"quality": -2.0}):
        for given in (front, tmp_path, str(tmp_path / "front.json")):
            with ecad.cached(tiny.pipe, given, **knob) as run:
                assert run.schedules["transformer"].name == "every_2"
                assert torch.equal(tiny.run(), expected[2])


def test_one_knob_must_be_turned(pixart):
    front = a_front(pixart)
    with pytest.raises(ecad.EcadError, match="either speedup or quality"):
        ecad.enable_cache(pixart.pipe, front)
    with pytest.raises(ecad.EcadError, match="give enable_cache a front"):
        ecad.enable_cache(pixart.pipe, front.schedules[0], speedup=2)
    with pytest.raises(ecad.EcadError, match=r"no schedule is 9 times cheaper: expected at most 3\.00"):
        ecad.enable_cache(pixart.pipe, front, speedup=9)
    run = ecad.enable_cache(pixart.pipe, front.schedules[0])
    with pytest.raises(ecad.EcadError, match="give enable_cache a front"):
        run.switch(speedup=2)


def test_each_generation_follows_what_was_switched_to_before_it(tiny):
    front, bare = a_front(tiny), tiny.run()
    expected = {**images_of(tiny, front), None: bare}
    before = tiny.snapshot()
    run = ecad.enable_cache(tiny.pipe, front, speedup=1)
    for tier in (2, None, 3, 2, 1, None, 3):
        run.switch(speedup=tier)
        assert torch.equal(tiny.run(), expected[tier])
        assert run.stats.cached_bytes == 0
    run.switch(front.schedules[0])
    assert torch.equal(tiny.run(), expected[3])
    run.switch()
    assert (run.schedules, run.plans) == ({}, {})
    run.disable()
    assert tiny.snapshot() == before


def test_a_generation_whose_timesteps_are_set_goes_on_under_its_schedule(tiny):
    front = a_front(tiny)
    expected = images_of(tiny, front)[2]
    run = ecad.enable_cache(tiny.pipe, front, speedup=2)
    handle = tiny.pipe.transformer.register_forward_pre_hook(lambda *_: run.switch())
    assert torch.equal(tiny.run(), expected)
    handle.remove()
    run.disable()


def test_switching_hooks_records_and_plans_nothing_again(tiny, monkeypatch):
    front, done = a_front(tiny), []

    def counted(holder, name):
        method = getattr(holder, name)
        monkeypatch.setattr(holder, name, lambda *args, **kwargs: done.append(name) or method(*args, **kwargs))

    run = ecad.enable_cache(tiny.pipe, front, speedup=1)
    tiny.run()
    counted(planned, "make_plan")
    counted(recordings, "record")
    counted(Override, "__init__")
    hooks = [vars(module)["forward"] for module in tiny.components.values()]
    for tier in (2, 3, None, 2, 1):
        run.switch(speedup=tier)
        tiny.run()
    assert done == []
    assert [vars(module)["forward"] for module in tiny.components.values()] == hooks
    ComponentHook(torch.nn.Identity(), 0, None)
    assert done == ["__init__"]


def test_a_generation_goes_on_as_it_began(flux):
    front = a_front(flux)
    expected = images_of(flux, front)
    run = ecad.enable_cache(flux.pipe, front, speedup=2)
    for tier in (3, None):
        run.switch(speedup=2)
        assert torch.equal(flux.run(callback_on_step_end=lambda *_, to=tier: run.switch(speedup=to) or {}), expected[2])
    assert run.schedules == {}


def test_a_loop_of_ones_own_is_switched(pixart):
    class Loop:
        """What the pipeline does, with the rows said by hand."""

        def __init__(self, run):
            self.run = run

        def __call__(self):
            pixart.pipe.scheduler.set_timesteps(4)
            sample, results = torch.ones(1, 4, 8, 8), []
            with torch.no_grad():
                for row, time in enumerate(pixart.pipe.scheduler.timesteps):
                    with self.run.step(row):
                        embeds = pixart.call["prompt_embeds"]
                        call = {"encoder_hidden_states": embeds, "timestep": time[None]}
                        sample = sample - 0.1 * pixart.pipe.transformer(sample, **call).sample[:, :4]
                    results.append(sample)
            return torch.stack(results)

    front = a_front(pixart)
    run = ecad.enable_cache(pixart.pipe.transformer, front, speedup=2)
    loop = Loop(run)
    half = loop()
    run.switch()
    whole = loop()
    run.switch(speedup=1)
    assert torch.equal(loop(), whole)
    run.switch(speedup=2)
    assert torch.equal(loop(), half)
    assert not torch.equal(half, whole)


def test_what_cannot_be_switched_to_leaves_what_was(pixart, make):
    front = a_front(pixart)
    run = ecad.enable_cache(pixart.pipe, front, speedup=2)
    expected = pixart.run()
    other = make.pixart(blocks=2)
    with pytest.raises(ecad.ScheduleError, match="does not fit PixArtTransformer2DModel"):
        run.switch(other.random_schedule())
    with pytest.raises(ecad.EcadError, match="expected schedules for transformer, found some for unet"):
        run.switch({"unet": pixart.random_schedule()})
    with pytest.raises(ecad.EcadError, match="no schedule is 9 times cheaper"):
        run.switch(speedup=9)
    assert torch.equal(pixart.run(), expected)
    run.disable()
    with pytest.raises(ecad.EcadError, match="was disabled"):
        run.switch()


def test_other_steps_follow_the_schedule_resampled_and_warn_once(tiny):
    schedule = tiny.random_schedule(steps=4)
    with ecad.cached(tiny.pipe, schedule.resample(6), exact=True):
        expected = tiny.run(6)
    run = ecad.enable_cache(tiny.pipe, schedule)
    with pytest.warns(ecad.EcadWarning) as told:
        assert torch.equal(tiny.run(6), expected)
    messages = [str(one.message) for one in told if one.category is ecad.EcadWarning]
    assert len(messages) == 1
    assert "'seed 0' has 4 rows, this run 6, and the schedule is resampled" in messages[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error", ecad.EcadWarning)
        assert torch.equal(tiny.run(6), expected)
        own = tiny.run(4)
    with ecad.cached(tiny.pipe, schedule):
        assert torch.equal(tiny.run(4), own)
    assert run.schedules == {"transformer": schedule}


def test_samplers_of_two_rows_a_step_are_resampled_by_rows(make):
    heun = make.pixart(diffusers.HeunDiscreteScheduler())
    schedule = heun.random_schedule(steps=7)
    with ecad.cached(heun.pipe, schedule.resample(9), exact=True):
        expected = heun.run(steps=5)
    ecad.enable_cache(heun.pipe, schedule)
    with pytest.warns(ecad.EcadWarning, match="has 7 rows, this run 9"):
        assert torch.equal(heun.run(steps=5), expected)
