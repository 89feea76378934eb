"""The noise levels of a sampler's last run, which transfer a schedule to other samplers and numbers of steps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from ecad.schedules.by_sigma import KEY
from ecad.utils.protocols import Sampler


def sigmas_config(sampler: Sampler, rows: int) -> dict[str, object]:
    """Return what `CacheSchedule.config` says of the noise levels at which a run called the denoiser.

    Args:
        sampler: a diffusers scheduler whose timesteps are those of the run.
        rows: number of rows of the run.

    Returns:
        `sigmas` and `prediction_type`; empty for a sampler without noise levels, one whose levels are not the run's
        or do not descend (a sampler that calls the denoiser twice per step), and an unknown type of prediction.

    >>> from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler
    >>> sampler = FlowMatchEulerDiscreteScheduler()
    >>> sampler.set_timesteps(2)
    >>> sigmas_config(sampler, 2)
    {'sigmas': [1.0, 0.001...], 'prediction_type': 'flow_prediction'}
    >>> sampler = DPMSolverMultistepScheduler(prediction_type="v_prediction")
    >>> sampler.set_timesteps(3)
    >>> sigmas_config(sampler, 3)["prediction_type"], sigmas_config(sampler, 4)
    ('v_prediction', {})
    """
    config = dict(getattr(sampler, "config", {}))
    flow = "FlowMatch" in type(sampler).__name__ or config.get("use_flow_sigmas")
    prediction = "flow_prediction" if flow else config.get("prediction_type")
    levels = _levels(sampler)
    if len(levels) == rows + 1:
        levels = levels[:-1]  # the level at which the last step ends
    descend = all(one > other for one, other in pairwise([*levels, 0.0]))
    if len(levels) != rows or not descend or prediction not in ("flow_prediction", "epsilon", "v_prediction", "sample"):
        return {}
    return {KEY: levels, "prediction_type": prediction}


def _levels(sampler: Sampler) -> list[float]:
    sigmas: Sequence[float] | None = getattr(sampler, "sigmas", None)
    if sigmas is not None:
        return [float(sigma) for sigma in sigmas]
    signal, times = getattr(sampler, "alphas_cumprod", None), getattr(sampler, "timesteps", ())
    if signal is None:
        return []
    kept = [float(signal[int(time)]) for time in times]
    return [float(((1 - share) / share) ** 0.5) for share in kept]
