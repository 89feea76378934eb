"""One trial image: which denoiser of a pipeline runs in which rows, and with what.

Each denoiser really runs once; after that the trial goes on with zeros, since only shapes and rows count.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from ecad.runtime.kept_outputs import tensors_in
from ecad.runtime.overrides import Around
from ecad.utils.protocols import Args, Kwargs, Pipeline

_PROMPT = "a photo"


@dataclass
class Watched:
    """What a trial sees of one denoiser: the arguments of its first forward, and the row of every forward."""

    arguments: dict[str, object] | None = None
    rows: list[int] = field(default_factory=list)

    @property
    def range(self) -> tuple[int, int]:
        """The first row, and the one after the last; (0, 0) if it never ran."""
        return (min(self.rows), max(self.rows) + 1) if self.rows else (0, 0)


class Trial:
    """Runs a pipeline once, each of its denoisers really once for each shape of its inputs."""

    def __init__(self, pipe: Pipeline, modules: Mapping[str, torch.nn.Module]) -> None:
        self.seen = {name: Watched() for name in modules}
        self._pipe, self._modules = pipe, modules
        self._outputs: dict[object, object] = {}
        self._steps = 0

    @property
    def num_rows(self) -> int:
        """Rows that the sampler made."""
        timesteps = getattr(getattr(self._pipe, "scheduler", None), "timesteps", None)
        return self._steps if timesteps is None else len(timesteps)

    def run(self, call: Mapping[str, object], steps: int) -> object:
        """The output of the pipeline."""
        overrides = [Around(module, "forward", partial(self._forward, name)) for name, module in self._modules.items()]
        if hasattr(self._pipe, "scheduler"):
            overrides.append(Around(self._pipe.scheduler, "step", self._step))
        try:
            with torch.no_grad():
                return self._pipe(prompt=[_PROMPT], num_inference_steps=steps, output_type="np", **call)
        finally:
            for override in overrides:
                override.remove()

    def _forward(self, name: str, forward: Callable[..., Any], args: Args, kwargs: Kwargs) -> object:
        seen, begin = self.seen[name], getattr(getattr(self._pipe, "scheduler", None), "begin_index", None) or 0
        seen.rows.append(begin + self._steps)
        if seen.arguments is None:
            seen.arguments = inspect.signature(forward).bind(*args, **kwargs).arguments
        key = name, tuple(tuple(tensor.shape) for tensor in tensors_in([*args, *kwargs.values()]))
        if key not in self._outputs:
            self._outputs[key] = forward(*args, **kwargs)
            return self._outputs[key]
        return tree_map_only(torch.Tensor, torch.zeros_like, self._outputs[key])

    def _step(self, step: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
        self._steps += 1
        return step(*args, **kwargs)
