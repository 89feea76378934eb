"""The rivals of `benchmarks/peers.py`: nothing stays behind, and caching off is uncached."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import numpy as np
import pytest

from ecad import builtin
from ecad.cost.macs import macs_table
from ecad.genetic.evaluation.problems import problem_of
from ecad.image_generators import get_image_generator
from ecad.runtime.cache import cached
from ecad.schedules import heuristics
from ecad.schedules.front import Front, Point

STEPS = 5
PROMPTS = builtin.prompts("search")[:2]


@pytest.fixture(scope="module")
def generator():  # type: ignore[no-untyped-def]
    return replace(get_image_generator("EmojiImageGenerator", device="cpu"), steps=STEPS)


@pytest.fixture(scope="module")
def calibration(rivals, generator):  # type: ignore[no-untyped-def]
    return rivals.setting.Calibration(generator, tuple(PROMPTS), STEPS)


@pytest.fixture(scope="module")
def uncached(rivals, generator):  # type: ignore[no-untyped-def]
    return make(rivals, generator, rivals.setting.Setting("uncached", ""))


def make(rivals, generator, setting):  # type: ignore[no-untyped-def]
    return rivals.measure.make_batch(generator, setting, PROMPTS, [3, 4], STEPS, memory=False)


def state(pipe):  # type: ignore[no-untyped-def]
    """What a rival could leave behind: classes, attributes and hooks of every part, and the pipeline's own methods."""
    parts = [pipe, pipe.scheduler, *pipe.transformer.modules()]
    volatile = ("_num_timesteps", "_guidance_scale", "_interrupt")
    names = [
        (type(part), sorted(name for name in vars(part) if name not in volatile), vars(part).get("forward"))
        for part in parts
    ]
    hooks = [
        (len(m._forward_hooks), len(m._forward_pre_hooks), id(m.forward.__func__)) for m in pipe.transformer.modules()
    ]
    return names, hooks, type(pipe).__call__


def rivals_that_patch(rivals, calibration):  # type: ignore[no-untyped-def]
    found = [
        *rivals.in_diffusers.all_of_diffusers(calibration),
        *rivals.in_cache_dit.all_of_cache_dit(calibration),
        *rivals.dp_cache.all_of_dp_cache(calibration),
        *rivals.easy_cache.all_of_easy_cache(calibration),
        *rivals.samplers.all_of_samplers(calibration),
        rivals.setting.Setting("TeaCache", "", applied=lambda pipe: rivals.tea_cache.reuse_residual(9.0, [1, 0], pipe)),
        rivals.setting.Setting(
            "Spectrum", "", applied=lambda pipe: rivals.spectrum.forecast_by_polynomials([0, 1], 0.5, pipe)
        ),
    ]
    kinds = {setting.rival: setting for setting in found if setting.unusable is None}
    return list(kinds.values())


def test_every_rival_leaves_the_pipeline_as_it_was_also_when_it_fails(rivals, generator, calibration, uncached) -> None:  # type: ignore[no-untyped-def]
    settings = rivals_that_patch(rivals, calibration)
    before = state(generator.pipe)
    assert len(settings) >= 7
    for setting in settings:
        found = make(rivals, generator, setting)
        assert state(generator.pipe) == before, setting.key
        assert found["macs"] < uncached["macs"] or "PAB" in setting.rival, setting.key
        with pytest.raises(KeyboardInterrupt), setting.applied(generator.pipe):
            raise KeyboardInterrupt
        assert state(generator.pipe) == before, setting.key
    again = make(rivals, generator, rivals.setting.Setting("uncached", ""))
    assert (again["images"] == uncached["images"]).all()


OFF = {
    "pab": {"spatial_attention_block_skip_range": 1},
    "first_block": {"threshold": 0.0},
    "taylor": {"cache_interval": 1, "cache_identifiers": [r"transformer_blocks\.\d+\.ff"]},
    "magnitude": {"threshold": -1.0, "mag_ratios": [1.0] * STEPS, "num_inference_steps": STEPS},
    "sea": {"threshold": 0.0},
}


@pytest.mark.parametrize("name", OFF)
def test_a_cache_of_diffusers_that_never_reuses_is_uncached(name, rivals, generator, uncached) -> None:  # type: ignore[no-untyped-def]
    config = getattr(rivals.in_diffusers, name)
    setting = rivals.setting.Setting(
        name,
        "off",
        applied=lambda pipe: rivals.in_diffusers.diffusers_cache(lambda loop: config(OFF[name], loop), pipe),
    )
    found = make(rivals, generator, setting)
    assert (found["images"] == uncached["images"]).all()
    assert found["macs"] == uncached["macs"]


def test_cache_dit_that_never_reuses_is_uncached(rivals, generator, uncached) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("cache_dit", reason="cache-dit is not installed: pip install -e '.[peers]'")
    given = {"Fn_compute_blocks": 1, "Bn_compute_blocks": 0, "max_warmup_steps": 1, "residual_diff_threshold": 0.0}
    setting = rivals.setting.Setting("off", "", applied=lambda pipe: rivals.in_cache_dit.dual_block(given, 0, pipe))
    found = make(rivals, generator, setting)
    assert (found["images"] == uncached["images"]).all()
    assert found["macs"] == uncached["macs"]


def test_without_cache_dit_the_table_says_why(rivals, calibration, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    [setting] = rivals.in_cache_dit.all_of_cache_dit(calibration)
    assert "not installed" in setting.unusable


def test_dp_cache_with_every_step_a_key_step_is_uncached(rivals, generator, uncached) -> None:  # type: ignore[no-untyped-def]
    keys = list(range(STEPS))
    setting = rivals.setting.Setting("off", "", applied=lambda pipe: rivals.dp_cache.forecast_between(keys, 1, pipe))
    found = make(rivals, generator, setting)
    assert (found["images"] == uncached["images"]).all()


def test_the_meter_counts_what_the_cost_table_says(rivals, generator, uncached) -> None:  # type: ignore[no-untyped-def]
    problem = problem_of(generator)
    # The pipeline pads texts to 32 tokens; the generator's architecture states its longest prompt.
    table = macs_table(replace(generator.architecture, text_tokens=32))
    assert uncached["macs"] == table.price(problem.template.recompute)
    # Cross-attention computes: in a row that reuses it, too, the runtime leaves out the captions' projection.
    every_2 = heuristics.every_n(problem.template.sites, STEPS, 2, components=("attn1", "ff"))
    setting = rivals.setting.Setting("every 2", "", applied=lambda pipe: cached(pipe, every_2))
    assert make(rivals, generator, setting)["macs"] == table.price(every_2.recompute)


def test_a_schedule_that_forecasts_is_another_setting_than_one_that_repeats(rivals, generator) -> None:  # type: ignore[no-untyped-def]
    every_2 = heuristics.every_n(problem_of(generator).template.sites, STEPS, 2)
    forecasting = every_2.replace(forecast=True)
    keys = {
        rivals.setting.of_schedule("ecad fast", "every 2", schedule, {}).key
        for schedule in (
            every_2,
            forecasting,
            forecasting.replace(output_products=np.eye(STEPS)),
            forecasting.replace(output_products=np.eye(STEPS), output_weights=[[1.0]] * STEPS),
        )
    }
    assert len(keys) == 4


def test_fronts_of_one_method_are_told_apart(rivals, generator) -> None:  # type: ignore[no-untyped-def]
    problem = problem_of(generator)
    points = [Point(heuristics.every_n(problem.template.sites, STEPS, n), 1 / n, 40.0 - n) for n in (2, 3)]
    fronts = [Front("one", points, provenance={"method": "calibrate"}), Front("two", points[:1])]
    fronts += [Front("three", points, provenance={"method": "calibrate"})]
    settings = rivals.schedules.of_fronts(fronts, problem)
    assert [setting.rival for setting in settings] == [
        *["ecad calibrate"] * 2,
        "ecad optimize",
        *["ecad calibrate, study 1"] * 2,
    ]
    assert len({setting.key for setting in settings}) == 5


def never_reusing(rivals) -> dict:  # type: ignore[no-untyped-def]
    steps = list(range(STEPS))
    return {
        "TeaCache": lambda pipe: rivals.tea_cache.reuse_residual(0.0, [1.0, 0.0], pipe),
        "EasyCache": lambda pipe: rivals.easy_cache.easy_cache(0.0, 2, True, pipe),
        "LazyCache": lambda pipe: rivals.easy_cache.lazy_cache(0.0, 2, True, pipe),
        "Spectrum": lambda pipe: rivals.spectrum.forecast_by_polynomials(steps, 0.5, pipe),
        "GITS": lambda pipe: rivals.samplers.only_steps(steps, pipe),
    }


@pytest.mark.parametrize("name", ["TeaCache", "EasyCache", "LazyCache", "Spectrum", "GITS"])
def test_a_reimplemented_rival_that_computes_every_step_is_uncached(name, rivals, generator, uncached) -> None:  # type: ignore[no-untyped-def]
    setting = rivals.setting.Setting(name, "off", applied=never_reusing(rivals)[name])
    found = make(rivals, generator, setting)
    assert (found["images"] == uncached["images"]).all()
    assert found["macs"] >= uncached["macs"]


@pytest.mark.parametrize("name", ["EasyCache", "LazyCache"])
def test_a_rival_that_reuses_whenever_it_may_runs_in_its_warm_up_and_at_the_end(  # type: ignore[no-untyped-def]
    name, rivals, generator, uncached
) -> None:
    applied = {"EasyCache": rivals.easy_cache.easy_cache, "LazyCache": rivals.easy_cache.lazy_cache}[name]
    setting = rivals.setting.Setting(name, "on", applied=lambda pipe: applied(1e9, 2, True, pipe))
    found = make(rivals, generator, setting)
    assert found["macs"] == uncached["macs"] * 3 / STEPS
    assert (found["images"] != uncached["images"]).any()
