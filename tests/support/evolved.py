"""A schedule with all that a search writes into it."""

from __future__ import annotations

import pytest

from ecad.schedules import CacheSchedule, heuristics, pixart_sites
from ecad.schedules.provenance import Interval, Provenance

ORIGIN = Provenance(
    denoiser="PixArtTransformer2DModel",
    layout="0123456789abcdef",
    configuration="fedcba9876543210",
    model="PixArtAlphaImageGenerator",
    sampler="DPMSolverMultistepScheduler",
    latents=(4, 32, 32),
    height=256,
    width=256,
    guidance_scale=4.5,
    search={"mode": "fast", "images": 1012},
    versions={"ecad": "0.1.0"},
    held_out={"psnr": Interval(30.5, 29.0, 32.0), "judge": Interval(87.25, 86.0, 88.5)},
    held_out_images=24,
)


@pytest.fixture
def schedule() -> CacheSchedule:
    return heuristics.every_n(pixart_sites(2), 12, 3).replace(attributes={"provenance": ORIGIN.to_json()})
