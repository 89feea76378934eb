"""Spectrum (Han et al., arXiv 2603.01623), reimplemented from its description: Chebyshev polynomials, fitted online.

The model computes the first steps, and then a step after ever longer runs of skipped ones. In a skipped step, what
enters the last layer is forecast from all computed steps: a ridge regression on Chebyshev polynomials of time, mixed
with the line through the last two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import numpy as np
import torch

from rivals.setting import Calibration, Setting
from rivals.skipped_blocks import between_key_steps

BASES, RIDGE, WINDOW = 4, 0.1, 2
# Growth of the window: 0.75 and 3 are its authors' settings, of 50 steps 14 and 10. Warm-up: theirs are 5 of 50 steps.
GROWTHS = (0.0, 0.3, 0.75, 3.0)
WARMUPS = (5, 2)
# Weight of the polynomials against the line: their code's default, and what its guide recommends.
MIXES = (1.0, 0.5)


def all_of_spectrum(calibration: Calibration) -> list[Setting]:
    """Each growth, warm-up and mix."""
    found = []
    for warmup in WARMUPS:
        for growth in GROWTHS:
            keys = computed_steps(calibration.steps, warmup, WINDOW, growth)
            if len(keys) == calibration.steps:
                continue
            for mix in MIXES:
                given = {"computed": keys, "bases": BASES, "ridge": RIDGE, "mix": mix}
                name = f"{len(keys)} of {calibration.steps}, warm-up {warmup}, mix {mix}"
                found.append(Setting("Spectrum", name, given, partial(forecast_by_polynomials, keys, mix)))
    return found or [Setting("Spectrum", "all", unusable=f"{calibration.steps} steps end with its warm-up")]


def computed_steps(steps: int, warmup: int, window: float, growth: float) -> list[int]:
    """The steps that run the model.

    >>> len(computed_steps(50, 5, 2, 0.75)), len(computed_steps(50, 5, 2, 3.0))
    (14, 10)
    """
    found, skipped = list(range(min(warmup, steps))), 0
    for step in range(warmup, steps):
        if (skipped + 1) % math.floor(window) == 0:
            found.append(step)
            skipped, window = 0, round(window + growth, 3)
        else:
            skipped += 1
    return found


def forecast_weights(computed: Sequence[int], step: int, steps: int, mix: float) -> np.ndarray:
    """What each computed step's features count in the forecast of a later step, float64 (computed,).

    >>> forecast_weights([0, 1, 2], 3, 20, 0.0).tolist()
    [0.0, -1.0, 2.0]
    """
    times = np.array([*computed, step]) * 2 / steps - 1
    design = np.polynomial.chebyshev.chebvander(times, BASES)
    past, now = design[:-1], design[-1]
    spectral = now @ np.linalg.solve(past.T @ past + RIDGE * np.eye(BASES + 1), past.T)
    line = np.zeros(len(computed))
    line[-1] = 1
    if len(computed) > 1:
        ahead = (step - computed[-1]) / (computed[-1] - computed[-2])
        line[-2:] += [-ahead, ahead]
    return mix * spectral + (1 - mix) * line


def forecast_by_polynomials(keys: Sequence[int], mix: float, pipe: Any) -> AbstractContextManager[None]:
    """A context in which a pipeline's blocks run at `keys` only.

    Args:
        keys: the steps that run the blocks.
        mix: as for `forecast_weights`.
        pipe: a diffusers pipeline whose transformer ends in `norm_out`.
    """

    def between(held: dict[int, torch.Tensor], step: int) -> torch.Tensor:
        weights = forecast_weights(list(held), step, len(pipe.scheduler.timesteps), mix)
        return sum(float(weight) * kept for weight, kept in zip(weights, held.values(), strict=True))

    return between_key_steps(pipe, keys, between, most=None)
