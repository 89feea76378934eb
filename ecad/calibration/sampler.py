"""The affine form of a sampler's step: most samplers are affine in the denoiser's output."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from ecad.utils.protocols import Args, Kwargs, Sampler

# Largest relative residual of the affine form.
_AFFINE = 1e-2


class AffineStep(NamedTuple):
    """One step of a sampler: next latents = `base` + `coefficient` * output.

    Attributes:
        base: tensor with the latents' shape.
        coefficient: 0 if the output has no effect.
    """

    base: torch.Tensor
    coefficient: float


def affine_step(scheduler: Sampler, output: torch.Tensor, args: Args, kwargs: Kwargs) -> AffineStep:
    """Measure the affine form of a scheduler's next step, on copies of the scheduler.

    Args:
        scheduler: scheduler of a pipeline before a call `scheduler.step(output, *args, **kwargs)`; it is not changed.
        output: the denoiser's output, after guidance.
        args: further positional arguments of the step.
        kwargs: keyword arguments of the step.

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
    """The next latents in the result of a scheduler's step, a tuple or an object."""
    found: torch.Tensor = result[0] if isinstance(result, tuple) else result.prev_sample
    return found


def _tried(scheduler: Sampler, output: torch.Tensor, args: Args, kwargs: Kwargs) -> torch.Tensor:
    with _unchanged_noise(kwargs.get("generator")):
        return latents_of(copy.deepcopy(scheduler).step(output, *args, **kwargs))


@contextmanager
def _unchanged_noise(generators: torch.Generator | list[torch.Generator] | None) -> Iterator[None]:
    """Restore the states of random generators: a sampler may draw noise."""
    known = generators if isinstance(generators, list) else [] if generators is None else [generators]
    states = [generator.get_state() for generator in known]
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        yield
    for generator, state in zip(known, states, strict=True):
        generator.set_state(state)


def _dot(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.float() * other.float()).sum(dtype=torch.float64 if one.device.type != "mps" else None))
