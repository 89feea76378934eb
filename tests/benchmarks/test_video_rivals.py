"""The rivals of `benchmarks/peers.py` on the built-in video model, whose temporal blocks regroup the tokens."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ecad import builtin
from ecad.genetic.evaluation.problems import problem_of
from ecad.image_generators import get_image_generator

NAME = "EmojiVideoGenerator"
STEPS = 6
PROMPTS = builtin.prompts("search", NAME)[:2]


class Part(SimpleNamespace):
    """A namespace whose class can be put back."""


@pytest.fixture(scope="module")
def generator():  # type: ignore[no-untyped-def]
    return replace(get_image_generator(NAME, device="cpu"), steps=STEPS)


@pytest.fixture(scope="module")
def uncached(rivals, generator):  # type: ignore[no-untyped-def]
    return make(rivals, generator, rivals.setting.Setting("uncached", ""))


def make(rivals, generator, setting):  # type: ignore[no-untyped-def]
    return rivals.measure.make_batch(generator, setting, PROMPTS, [3, 4], STEPS, memory=False)


def of_diffusers(rivals, name: str, **given: Any):  # type: ignore[no-untyped-def]
    config = getattr(rivals.in_diffusers, name)
    return lambda pipe: rivals.in_diffusers.stack_cache(lambda loop: config(given, loop), pipe)


def magnitude(rivals, threshold: float):  # type: ignore[no-untyped-def]
    ratios = {"mag_ratios": [1.0] * STEPS, "num_inference_steps": STEPS, "retention_ratio": 0.2}
    return of_diffusers(rivals, "magnitude", threshold=threshold, max_skip_steps=STEPS, **ratios)


def dual_block(rivals, threshold: float):  # type: ignore[no-untyped-def]
    given = {
        "Fn_compute_blocks": 1,
        "Bn_compute_blocks": 0,
        "max_warmup_steps": 1,
        "residual_diff_threshold": threshold,
    }
    return lambda pipe: rivals.in_cache_dit.dual_block(given, 0, pipe)


def settings(rivals, threshold: float) -> dict[str, Any]:  # type: ignore[no-untyped-def]
    """Rival -> how it is applied; they never reuse below a threshold of 0, and whenever they may with a large one."""
    found = {
        "FirstBlockCache": of_diffusers(rivals, "first_block", threshold=max(threshold, 0)),
        "MagCache": magnitude(rivals, threshold),
        "SeaCache": of_diffusers(
            rivals, "sea", threshold=max(threshold, 0), residual_order=0, max_consecutive_cached=9
        ),
        "TeaCache": lambda pipe: rivals.tea_cache.reuse_residual(threshold, [1.0, 0.0], pipe),
        "EasyCache": lambda pipe: rivals.easy_cache.easy_cache(threshold, 2, True, pipe),
        "LazyCache": lambda pipe: rivals.easy_cache.lazy_cache(threshold, 2, True, pipe),
    }
    if importlib.util.find_spec("cache_dit") is not None:
        found["cache-dit"] = dual_block(rivals, max(threshold, 0))
    return found


RIVALS = ["FirstBlockCache", "MagCache", "SeaCache", "TeaCache", "EasyCache", "LazyCache", "cache-dit"]


def applied(rivals, name: str, threshold: float):  # type: ignore[no-untyped-def]
    found = settings(rivals, threshold)
    if name not in found:
        pytest.skip("cache-dit is not installed: pip install -e '.[peers]'")
    return rivals.setting.Setting(name, str(threshold), applied=found[name])


@pytest.mark.parametrize("name", RIVALS)
def test_a_rival_that_never_reuses_is_uncached_and_leaves_the_pipeline_as_it_was(  # type: ignore[no-untyped-def]
    name, rivals, generator, uncached
) -> None:
    transformer = generator.pipe.transformer
    before = dict(transformer.named_modules()), transformer.temp_pos_embed.clone()
    found = make(rivals, generator, applied(rivals, name, -1.0))
    assert (found["images"] == uncached["images"]).all()
    assert found["macs"] >= uncached["macs"]
    assert dict(transformer.named_modules()) == before[0]
    assert list(dict(transformer.named_modules())) == list(before[0])
    assert (transformer.temp_pos_embed == before[1]).all()
    assert "temporal_transformer_blocks" not in vars(transformer)


@pytest.mark.parametrize("name", RIVALS)
def test_a_rival_that_may_always_reuse_does_less_and_makes_other_clips(name, rivals, generator, uncached) -> None:  # type: ignore[no-untyped-def]
    found = make(rivals, generator, applied(rivals, name, 1e9))
    assert found["macs"] < 0.8 * uncached["macs"]
    assert (found["images"] != uncached["images"]).any()
    assert found["images"].shape == uncached["images"].shape


@pytest.mark.parametrize("name", ["TeaCache", "FirstBlockCache", "MagCache"])
def test_a_step_with_the_input_of_the_last_one_has_its_output(name, rivals, generator) -> None:  # type: ignore[no-untyped-def]
    """What a rival reuses is the difference that the blocks make, and what the transformer adds between them."""
    transformer = generator.pipe.transformer
    channels, size = transformer.config.in_channels, transformer.config.sample_size
    scheduler = Part(step_index=0, timesteps=torch.full((STEPS,), 500), sigmas=torch.ones(STEPS), config={})
    pipe = Part(transformer=transformer, scheduler=scheduler)
    noise = torch.randn(2, channels, transformer.config.video_length, size, size)
    text = torch.randn(2, 16, transformer.config.caption_channels)
    macs = []
    with torch.no_grad(), settings(rivals, 1e9)[name](pipe):
        outputs = []
        # The first steps fill what is reused; MagCache runs 0.2 of them.
        for scheduler.step_index in range(4):
            with rivals.measure.Products() as counted:
                outputs.append(transformer(noise, torch.tensor([500, 500]), text).sample)
            macs.append(counted.macs)
    assert macs[-1] < macs[0] / 2
    torch.testing.assert_close(outputs[-1], outputs[0])


def test_every_rival_has_settings_for_a_video_model(rivals, generator) -> None:  # type: ignore[no-untyped-def]
    calibration = rivals.setting.Calibration(generator, tuple(PROMPTS), STEPS)
    found = [
        *rivals.in_diffusers.all_of_diffusers(calibration),
        *rivals.tea_cache.all_of_tea_cache(calibration),
        *rivals.schedules.tgate(problem_of(generator)),
    ]
    assert [setting.rival for setting in found if setting.unusable] == []
    names = {f"{setting.rival} {setting.name}" for setting in found}
    assert {"diffusers PAB spatial 2, temporal 3, cross 6", "diffusers FasterCache guide, temporal 2"} <= names
    polynomial = next(setting for setting in found if setting.rival == "TeaCache").parameters["polynomial"]
    assert np.isfinite(polynomial).all()
    [gated] = [setting for setting in found if setting.name == "gate 2"]
    assert make(rivals, generator, gated)["macs"] > 0
