"""Random requests for `stress.py`."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import numpy as np
import torch
from served import KINDS

import ecad
from ecad.sites.discovery import discover

# Numbers of values that requests are drawn from.
STEPS, PROMPTS, SEEDS, SCHEDULES, WEIGHTS = (3, 4, 6), 3, 2, 3, 2


@dataclass(frozen=True)
class Request:
    """The inputs of one image; equal requests give equal images.

    The weights are full ones and those of a LoRA.

    Attributes:
        kind: name in `KINDS`.
        schedule: seed of a random schedule; None for the bare pipeline.
        forecast: whether the schedule extrapolates.
        ends: None, or "error" or "flag" with the row after which the generation ends.
        visitor: the row after which another pipeline uses the denoiser, or None.
    """

    kind: str
    steps: int
    size: int
    prompt: int
    seed: int
    weights: int
    lora: int
    schedule: int | None
    forecast: bool = False
    ends: tuple[str, int] | None = None
    visitor: int | None = None


def draw(chance: random.Random) -> Request:
    """A random request."""
    steps = chance.choice(STEPS)
    kind = chance.choice(list(KINDS))
    request = Request(
        kind,
        steps,
        size=chance.choice(KINDS[kind].sizes),
        prompt=chance.randrange(PROMPTS),
        seed=chance.randrange(SEEDS),
        weights=chance.randrange(WEIGHTS),
        lora=chance.randrange(WEIGHTS),
        schedule=chance.choice([None, *range(SCHEDULES)]),
        forecast=chance.random() < 0.25,
    )
    row, fate = chance.randrange(steps - 1), chance.random()
    if fate < 0.1:
        return replace(request, ends=("error", row))
    if fate < 0.2 and KINDS[kind].has_flag:
        return replace(request, ends=("flag", row))
    return replace(request, visitor=row) if fate < 0.3 else request


def schedule_of(request: Request, model: torch.nn.Module) -> ecad.CacheSchedule:
    """The schedule of a request; if it extrapolates, parallel outputs of a block are computed together."""
    sites = tuple((site.block, site.component) for site in discover(model))
    drawn = np.random.default_rng((request.schedule, request.steps))
    bits = drawn.random((request.steps, len(sites))) < 0.5
    if request.forecast:
        bits = np.repeat(bits[:, :1], len(sites), axis=1)
    return ecad.CacheSchedule(bits, sites, name=f"{request.schedule}", forecast=request.forecast)


def with_visitors(requests: list[Request]) -> list[Request]:
    """The requests and those of their visitors."""
    found = []
    for request in requests:
        found.append(request)
        if request.visitor is not None:
            theirs = replace(request, seed=(request.seed + 1) % SEEDS, visitor=None)
            found += [theirs, bare(theirs)]
    return found


def crowded(generations: int, threads: int, chance: random.Random) -> list[Request]:
    """Requests of each kind with the same schedule and weights."""
    count = max(2, generations // (10 * threads * len(KINDS)))
    found = []
    for kind in KINDS:
        plain = Request(kind, STEPS[1], KINDS[kind].sizes[0], 0, 0, weights=0, lora=0, schedule=1)
        found += [
            replace(
                plain,
                prompt=chance.randrange(PROMPTS),
                seed=chance.randrange(SEEDS),
                size=chance.choice(KINDS[kind].sizes),
            )
            for _ in range(count)
        ]
    return found


def bare(request: Request) -> Request:
    """The same request without a schedule."""
    return replace(request, schedule=None, forecast=False)
