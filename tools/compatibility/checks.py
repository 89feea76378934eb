"""What the modes check, and the callbacks that they give to pipelines."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from case import Case, Wrong, same
from recording import Recording, watched_schedulers
from torch import nn


class Stop(Exception):
    """Aborts a generation."""


def must_be_same(got: list[torch.Tensor], want: list[torch.Tensor], where: str) -> None:
    if not same(got, want):
        raise Wrong(f"{where}: differs from the interpreted one by {_distance(got, want)}")


def _distance(got: list[torch.Tensor], want: list[torch.Tensor]) -> str:
    if [tensor.shape for tensor in got] != [tensor.shape for tensor in want]:
        return "its shape"
    far = [
        float((one.double() - other.double()).abs().max()) for one, other in zip(got, want, strict=True) if one.numel()
    ]
    size = [float(other.double().abs().max()) for other in want if other.numel()]
    return f"{max(far, default=math.nan):.2g} of {max(size, default=math.nan):.2g}"


def must_be_empty(run: Any, when: str = "after the generation") -> None:
    if run.stats.cached_bytes:
        raise Wrong(f"{run.stats.cached_bytes} bytes are still kept {when}")


def traces(pipe: Any) -> Iterator[str]:
    """The attributes, overrides and hooks of the pipeline's parts, by name."""
    found = [f"pipeline.{name}" for name in vars(pipe)]
    for part, value in pipe.components.items():
        if isinstance(value, nn.Module):
            for path, module in value.named_modules():
                hooks = len(module._forward_pre_hooks), len(module._forward_hooks)
                found += [f"{part}.{path}.{name}" for name in vars(module)]
                found.append(f"{part}.{path}: {hooks} hooks")
        elif hasattr(value, "set_timesteps"):
            found += [f"{part}.{name}" for name, held in vars(value).items() if callable(held)]
    return iter(found)


@contextmanager
def aborted(steps: int) -> Iterator[None]:
    """Make any scheduler fail at one of its steps."""
    done = []

    def step(*_: Any) -> None:
        done.append(None)
        if len(done) == steps:
            raise Stop

    with watched_schedulers(lambda _: None, step):
        yield


def takes_callback(case: Case) -> bool:
    return "callback_on_step_end" in case.subject.parameters()


def interrupts(pipe: Any, step: int, _: Any, tensors: dict[str, Any]) -> dict[str, Any]:
    if step == 1:
        pipe._interrupt = True
    return tensors


def ends_guidance(halves: bool, pipe: Any = None) -> dict[str, Any]:
    """A callback that sets the guidance scale to 1 and keeps the second half of batched inputs."""

    def end(pipe: Any, step: int, _: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if step != 1:
            return {}
        pipe._guidance_scale = 1.0
        return {name: value.chunk(2)[1] for name, value in tensors.items()} if halves else {}

    wanted = [name for name in getattr(pipe, "_callback_tensor_inputs", ()) if name.startswith("prompt_")]
    return {"callback_on_step_end": end, "callback_on_step_end_tensor_inputs": wanted}


def work(recording: Recording) -> int:
    """Number of elements in all arguments of denoisers."""
    return sum(math.prod(shape) for forward in recording.forwards for shape in forward.shapes)
