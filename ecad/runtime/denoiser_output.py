"""The denoiser's own output under a schedule that forecasts: where no component runs, the denoiser need not either."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from ecad.runtime.kept_outputs import CacheStats, Kept, Storage
from ecad.schedules.forecast import Ahead


class Output:
    """What one pass's forwards return, from one row to the next.

    Arguments:
        stats, storage: of its kept tensors.

    Attributes:
        runs, ahead, held: whether the denoiser runs in the row that is running, what stands for its output there, and
            how many outputs, the newest ones, are kept for later rows.
    """

    def __init__(self, stats: CacheStats, storage: Storage | None) -> None:
        self.runs, self.ahead, self.held = True, Ahead(), 0
        self._stats, self._storage = stats, storage
        # The newest first.
        self._kept: list[Kept] = []
        self._structure: Any = None

    def of(self, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """What this row's forward returns; it runs if the plan says so."""
        if not self.runs:
            given = self._made_of([kept.get() for kept in self._kept[: self.ahead.depth]])
            self._keep_newest(self.held)
            return given
        result = forward(*args, **kwargs)
        leaves, self._structure = pytree.tree_flatten(result)
        if self.ahead != Ahead():
            result = self._made_of([leaves, *(kept.get() for kept in self._kept[: self.ahead.depth - 1])])
        self._keep_newest(max(self.held - 1, 0))
        if self.held:
            # Pipelines may change in place what a denoiser gave them.
            kept = Kept(self._stats, self._storage)
            kept.keep(tuple(leaf.clone() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves))
            self._kept.insert(0, kept)
        return result

    def free(self) -> None:
        """Forget everything."""
        self._keep_newest(0)

    def _keep_newest(self, count: int) -> None:
        for kept in self._kept[count:]:
            kept.free()
        del self._kept[count:]

    def _made_of(self, outputs: Sequence[Sequence[Any]]) -> Any:
        leaves = [_ahead(self.ahead, *parts) for parts in zip(*outputs, strict=True)]
        return pytree.tree_unflatten(leaves, self._structure)


def _ahead(ahead: Ahead, newest: Any, before: Any = None, first: Any = None) -> Any:
    if not (isinstance(newest, torch.Tensor) and newest.is_floating_point()):
        return newest
    given = newest * ahead.scale
    if ahead.slope is not None:
        given = torch.add(given, newest - before, alpha=ahead.slope)
    if ahead.bend is not None:
        given = torch.add(given, before - first, alpha=ahead.bend)
    return given
