"""A sampler's step as what it nearly always is: affine in the denoiser's output."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

# How much of a step's answer may be something else than base and coefficient times output, relative.
_AFFINE = 1e-2


class AffineStep(NamedTuple):
    """One step of a sampler: next latents = `base` + `coefficient` * output.

    Attributes:
        base: of the latents' shape.
        coefficient: 0 where the output makes no difference.
    """

    base: torch.Tensor
    coefficient: float


def affine_step(scheduler: Any, output: torch.Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]) -> AffineStep:
    """Try what a scheduler's next step makes of its output, on copies of the scheduler.

    Args:
        scheduler: of a pipeline, about to be called as `scheduler.step(output, *args, **kwargs)`; nothing changes it.
        output: what the denoiser gave, after guidance.
        args, kwargs: the step's other arguments.

    Raises:
        ValueError: the step is not affine, so that outputs cannot be fitted to latents.
    """
    base = _tried(scheduler, torch.zeros_like(output), args, kwargs)
    change = _tried(scheduler, output, args, kwargs) - base
    squared = _dot(output, output)
    coefficient = _dot(change, output) / squared if squared > 0 else 0.0
    rest = change - coefficient * output
    if _dot(rest, rest) > _AFFINE**2 * _dot(change, change):
        raise ValueError(f"{type(scheduler).__name__}: the step is not affine in the denoiser's output")
    return AffineStep(base, coefficient)


def latents_of(result: Any) -> torch.Tensor:
    """The next latents that a scheduler's step returned, in either of its forms."""
    found: torch.Tensor = result[0] if isinstance(result, tuple) else result.prev_sample
    return found


def _tried(scheduler: Any, output: torch.Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]) -> torch.Tensor:
    with _unchanged_noise(kwargs.get("generator")):
        return latents_of(copy.deepcopy(scheduler).step(output, *args, **kwargs))


@contextmanager
def _unchanged_noise(generators: Any) -> Iterator[None]:
    """A sampler may draw noise: the next draw is as if there had been none."""
    known = generators if isinstance(generators, list) else [] if generators is None else [generators]
    states = [generator.get_state() for generator in known]
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        yield
    for generator, state in zip(known, states, strict=True):
        generator.set_state(state)


def _dot(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.float() * other.float()).sum(dtype=torch.float64 if one.device.type != "mps" else None))
