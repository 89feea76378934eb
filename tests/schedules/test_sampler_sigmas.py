"""Noise levels of diffusers' samplers as a schedule's config states them."""

from __future__ import annotations

import diffusers
import numpy as np
import pytest

from ecad.schedules.sampler_sigmas import sigmas_config

STEPS = 7


def config_of(kind: str, **settings: object) -> dict[str, object]:
    sampler = getattr(diffusers, kind)(**settings)
    sampler.set_timesteps(STEPS)
    return sigmas_config(sampler, len(sampler.timesteps))


@pytest.mark.parametrize(
    "kind", ["DDIMScheduler", "DDPMScheduler", "EulerDiscreteScheduler", "UniPCMultistepScheduler"]
)
def test_samplers_of_one_noise_schedule_agree_at_the_same_timesteps(kind) -> None:  # type: ignore[no-untyped-def]
    sampler = getattr(diffusers, kind)(timestep_spacing="leading")
    sampler.set_timesteps(STEPS)
    found = sigmas_config(sampler, STEPS)
    signal = diffusers.DDPMScheduler().alphas_cumprod.double()
    times = np.asarray(sampler.timesteps, dtype=float)
    expected = np.interp(times, np.arange(1000), ((1 - signal) / signal).sqrt().numpy())
    np.testing.assert_allclose(found["sigmas"], expected, rtol=1e-4)  # type: ignore[arg-type]
    assert found["prediction_type"] == "epsilon"


def test_a_sampler_that_calls_twice_per_step_has_no_levels_that_descend() -> None:
    assert config_of("HeunDiscreteScheduler") == {}


def test_flow_sigmas_of_a_general_sampler_are_told_as_such() -> None:
    found = config_of("UniPCMultistepScheduler", use_flow_sigmas=True, prediction_type="flow_prediction")
    assert found["prediction_type"] == "flow_prediction"
    assert 0 < min(found["sigmas"]) < max(found["sigmas"]) <= 1  # type: ignore[type-var, arg-type]


def test_a_sampler_without_levels_says_nothing() -> None:
    assert sigmas_config(object(), 3) == {}  # type: ignore[arg-type]
