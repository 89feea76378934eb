"""How alike what a sampler is given at any two steps is, read off a pipeline that runs uncached.

That is the denoiser's output after guidance: of what its two halves have in common and where they differ, so much as
the image gets to see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from ecad.runtime.overrides import After, Around

# Numbers of a step that are multiplied at once.
_AT_ONCE = 1 << 20
# Of the mean product of a step with itself.
_DECIMALS = 10


class OutputProducts:
    """Sums inner products, generation by generation; made by `recorded_products`."""

    def __init__(self, steps: int) -> None:
        self._sums: np.ndarray = np.zeros((steps, steps))
        self._now: list[torch.Tensor] = []

    def begin(self) -> None:
        """A generation begins; one before it of other steps, given up for want of memory say, does not count."""
        given, self._now = self._now, []
        if len(given) == len(self._sums):
            for part in torch.stack(given).split(_AT_ONCE, dim=1):
                self._sums += np.asarray(part.double() @ part.double().T)

    def see(self, step: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """A sampler's step, seen from around."""
        given = args[0] if args else kwargs["model_output"]
        self._now.append(given.detach().to("cpu", copy=True).flatten())
        return step(*args, **kwargs)

    def table(self) -> np.ndarray | None:
        """Float64 (steps, steps), of mean 1 on its diagonal; None if nothing was seen, or no numbers."""
        self.begin()
        if not self._sums.trace() > 0 or not np.isfinite(self._sums).all():
            return None
        sums = (self._sums + self._sums.T) / 2  # a product is not symmetric to the last bit
        return np.asarray(np.round(sums * (len(sums) / sums.trace()), _DECIMALS))


@contextmanager
def recorded_products(pipe: Any, steps: int) -> Iterator[OutputProducts]:
    """Watch a pipeline's sampler within a `with` block.

    Args:
        pipe: a diffusers pipeline.
        steps: rows of its generations.
    """
    seen = OutputProducts(steps)
    overrides = [After(pipe.scheduler, "set_timesteps", seen.begin), Around(pipe.scheduler, "step", seen.see)]
    try:
        yield seen
    finally:
        for override in overrides:
            override.remove()
