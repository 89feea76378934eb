"""How many rows each sampler makes of a number of steps, and which number of steps makes a schedule's rows."""

from __future__ import annotations

import copy

import diffusers
import pytest

from ecad.errors import ScheduleError
from ecad.schedules.rows import rows_of, steps_of

# Name -> (its settings, rows of n steps).
SAMPLERS = {
    "DPMSolverMultistepScheduler": ({}, lambda n: n),
    "EulerDiscreteScheduler": ({}, lambda n: n),
    "FlowMatchEulerDiscreteScheduler": ({"use_dynamic_shifting": True}, lambda n: n),
    "FlowMatchHeunDiscreteScheduler": ({}, lambda n: 2 * n - 1),
    "HeunDiscreteScheduler": ({}, lambda n: 2 * n - 1),
    "KDPM2DiscreteScheduler": ({}, lambda n: 2 * n - 1),
    "PNDMScheduler": ({"skip_prk_steps": True}, lambda n: n + 1),
    "SCMScheduler": ({}, lambda n: n + 1),
    "UniPCMultistepScheduler": ({}, lambda n: n),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_copy_of_the_sampler_is_asked(name: str) -> None:
    settings, expected = SAMPLERS[name]
    sampler = getattr(diffusers, name)(**settings)
    before, timesteps = set(vars(sampler)), copy.deepcopy(sampler.timesteps)
    for steps in (2, 3, 8):
        assert rows_of(sampler, steps) == expected(steps)
        assert steps_of(sampler, expected(steps)) == steps
    assert set(vars(sampler)) == before
    assert str(sampler.timesteps) == str(timesteps)


def test_a_number_of_rows_that_no_number_of_steps_makes_is_refused_with_what_does() -> None:
    with pytest.raises(ScheduleError, match=r"has 6 rows, and HeunDiscreteScheduler makes 5 of 3 steps, 7 of 4 steps"):
        steps_of(diffusers.HeunDiscreteScheduler(), 6, "x")
    with pytest.raises(ScheduleError, match="SCMScheduler makes 2 of 1 steps: resample it for this sampler"):
        steps_of(diffusers.SCMScheduler(), 1, "x")
    with pytest.raises(ScheduleError, match="PNDMScheduler does not take 1 steps"):
        rows_of(diffusers.PNDMScheduler(), 1)


def test_a_sampler_that_is_followed_by_a_cache_is_left_alone() -> None:
    from ecad.runtime.overrides import After

    sampler, called = diffusers.HeunDiscreteScheduler(), []
    After(sampler, "set_timesteps", lambda: called.append(1))
    assert rows_of(sampler, 4) == 7
    assert called == []
