"""Schedules of whole steps for tests, and how often a denoiser really runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ecad import CacheSchedule
from ecad.sites.names import DENOISER_SITES

COMPUTED = [0, 1, 3, 5]


def schedule_of(computed: list[int], rows: int, **rest: Any) -> CacheSchedule:
    bits = np.zeros((rows, 1), dtype=bool)
    bits[computed] = True
    return CacheSchedule(bits, DENOISER_SITES, **rest)


def products_of(rows: int) -> np.ndarray:
    outputs = np.random.default_rng(0).standard_normal((rows, 30)).cumsum(axis=0)
    return outputs @ outputs.T


def count_runs(denoiser: torch.nn.Module) -> list[int]:
    """How often the denoiser has really run, by its first convolution or linear layer."""
    runs = [0]
    inner = next(part for part in denoiser.modules() if isinstance(part, (torch.nn.Conv2d, torch.nn.Linear)))
    inner.register_forward_hook(lambda *_: runs.__setitem__(0, runs[0] + 1))
    return runs
