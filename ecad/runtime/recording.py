"""How alike a denoiser's outputs at any two steps are, read off a pipeline that runs uncached."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

# Numbers of a step's outputs that are multiplied at once.
_AT_ONCE = 1 << 20
# Of the mean product of an output with itself.
_DECIMALS = 10


class OutputProducts:
    """Sums the inner products of a denoiser's outputs, generation by generation; see `CacheRun.on_output`.

    >>> seen = OutputProducts(steps=2)
    >>> seen.see(0, torch.tensor([3.0, 0.0]))
    >>> seen.see(1, torch.tensor([3.0, 4.0]))
    >>> (17 * seen.table()).round(6).tolist()
    [[9.0, 9.0], [9.0, 25.0]]
    """

    def __init__(self, steps: int) -> None:
        self._sums: np.ndarray | None = np.zeros((steps, steps))
        self._now: list[list[torch.Tensor]] = []

    def see(self, step: int, output: Any) -> None:
        """A forward of this step gave this; a step may take several, and one before the last begins a generation."""
        if step < len(self._now) - 1:
            self._add()
        while len(self._now) <= step:
            self._now.append([])
        sample = pytree.tree_leaves(output)[0]
        self._now[step].append(sample.detach().to("cpu", copy=True).flatten())

    def table(self) -> np.ndarray | None:
        """Float64 (steps, steps), of mean 1 on its diagonal; None if steps differed in what came of them."""
        self._add()
        if self._sums is None or not self._sums.trace() > 0 or not np.isfinite(self._sums).all():
            return None
        return np.asarray(np.round(self._sums * (len(self._sums) / self._sums.trace()), _DECIMALS))

    def _add(self) -> None:
        rows, self._now = self._now, []
        sizes = {sum(part.numel() for part in row) for row in rows}
        if self._sums is None or len(rows) < len(self._sums):  # a generation may be given up for want of memory
            return
        if len(rows) > len(self._sums) or len(sizes) != 1:
            self._sums = None
            return
        outputs = torch.stack([torch.cat(row) for row in rows])
        for part in outputs.split(_AT_ONCE, dim=1):
            self._sums += np.asarray(part.double() @ part.double().T)
