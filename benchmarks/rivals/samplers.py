"""Rivals that take fewer steps in a better way: another sampler, or steps at chosen places."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from diffusers import UniPCMultistepScheduler

from rivals.noise_scale import denoised_latents, scales
from rivals.put_back import put_back
from rivals.schedules import FEWER
from rivals.setting import Calibration, Setting

# GITS weights a step's own error by this factor more for each step that follows; 1.15 is its authors' default.
GROWTHS = (1.15, 1.0)


def all_of_samplers(calibration: Calibration) -> list[Setting]:
    """UniPC (arXiv 2302.04867), and GITS (arXiv 2405.11326), which places the steps by dynamic programming."""
    steps = calibration.steps
    counts = [n for n in dict.fromkeys(round(share * steps) for share in FEWER) if 1 < n < steps]
    found = [Setting("UniPC", str(n), {"steps": n}, unipc, steps=n) for n in counts]
    errors = euler_errors(calibration)
    for growth in GROWTHS:
        for n in counts:
            places = placed_steps(errors, n, growth)
            found.append(
                Setting("GITS", f"{n}, factor {growth}", {"places": places}, partial(only_steps, places), steps=steps)
            )
    return found or [Setting("UniPC", "all", unusable=f"{steps} steps leave no fewer")]


@contextmanager
def unipc(pipe: Any) -> Iterator[None]:
    """Within the `with`, a pipeline samples with UniPC of order 2, its authors' choice for guided sampling."""
    before = pipe.scheduler
    flow = {}
    if "FlowMatch" in type(before).__name__:
        flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": before.config.shift}
    pipe.scheduler = UniPCMultistepScheduler.from_config(before.config, solver_order=2, **flow)
    try:
        yield
    finally:
        pipe.scheduler = before


def euler_errors(calibration: Calibration) -> np.ndarray:
    """How far one Euler step from each point of the uncached trajectory misses each later one.

    Returns:
        float64 (steps, steps + 1), [i, j] for i < j; the mean distance over the calibration's images.
    """
    scheduler = calibration.generator.pipe.scheduler
    points: list[torch.Tensor] = []
    slopes: list[torch.Tensor] = []
    sigmas: list[float] = []

    def step(original: Any, prediction: torch.Tensor, timestep: Any, latents: torch.Tensor, **kwargs: Any) -> Any:
        alpha, sigma = scales(scheduler)
        noisy = latents / alpha
        points.append(noisy)
        slopes.append((noisy - denoised_latents(scheduler, noisy, prediction)) / sigma)
        sigmas.append(sigma)
        after = original(prediction, timestep, latents, **kwargs)
        if len(points) % (calibration.steps + 1) == calibration.steps:
            points.append(after[0])
        return after

    with put_back(calibration.generator.pipe):
        scheduler.step = partial(step, scheduler.step)
        calibration.run()
    levels, steps = [*sigmas[: calibration.steps], 0.0], calibration.steps
    errors = np.full((steps, steps + 1), np.inf)
    for i in range(steps):
        for j in range(i + 1, steps + 1):
            missed = [
                (points[b * (steps + 1) + i] + (levels[j] - levels[i]) * slopes[b * steps + i])
                - points[b * (steps + 1) + j]
                for b in range(len(slopes) // steps)
            ]
            errors[i, j] = float(torch.cat(missed).flatten(1).norm(dim=1).mean())
    return errors


def placed_steps(errors: np.ndarray, count: int, growth: float) -> list[int]:
    """The steps of the uncached trajectory that a path of `count` Euler steps with the least summed error visits.

    Args:
        errors: as `euler_errors` returns them.
        count: number of steps.
        growth: factor by which what was missed before a step counts more after it.
    """
    steps = len(errors)
    least, before = np.full(steps + 1, np.inf), []
    least[0] = 0.0
    for _ in range(count):
        total = growth * least[:steps, None] + errors
        before.append(total.argmin(axis=0))
        least = total.min(axis=0)
    places = [steps]
    for table in reversed(before):
        places.append(int(table[places[-1]]))
    return sorted(places)[:-1]


@contextmanager
def only_steps(places: list[int], pipe: Any) -> Iterator[None]:
    """Within the `with`, a pipeline takes only some of the steps that its sampler would take.

    Args:
        places: the steps to take, ascending.
        pipe: a diffusers pipeline.
    """
    scheduler = pipe.scheduler

    def set_timesteps(original: Any, *args: Any, **kwargs: Any) -> None:
        original(*args, **kwargs)
        scheduler.timesteps = scheduler.timesteps[places]
        scheduler.sigmas = scheduler.sigmas[[*places, -1]]
        scheduler.num_inference_steps = len(places)

    with put_back(pipe):
        # The pipelines ask for the names of its parameters.
        wrapped = partial(set_timesteps, scheduler.set_timesteps)
        wrapped.__signature__ = inspect.signature(scheduler.set_timesteps)  # type: ignore[attr-defined]
        scheduler.set_timesteps = wrapped
        yield
