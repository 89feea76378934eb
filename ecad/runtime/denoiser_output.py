"""The denoiser's own output under a schedule that forecasts: where no component runs, the denoiser need not either."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from ecad.runtime.kept_outputs import Kept, Storage, Tally, is_number
from ecad.schedules.forecast import Ahead


class Output:
    """What one pass's forwards return, from one row to the next.

    Args:
        tally, storage: of its kept tensors.
    """

    def __init__(self, tally: Tally, storage: Storage | None) -> None:
        self._tally, self._storage = tally, storage
        # The newest first.
        self._kept: list[Kept] = []
        self._structure: Any = None

    def reaches(self, ahead: Ahead) -> bool:
        """Whether as many results are kept as something is made of."""
        return len(self._kept) >= ahead.depth

    def forecast(self, ahead: Ahead, held: int) -> Any:
        """What stands for the result of a forward that does not run.

        Args:
            ahead: what is made of the newest results.
            held: how many of them later rows need.

        Returns:
            New tensors, in the structure of what was returned; None if fewer are kept.
        """
        if not self.reaches(ahead):
            return None
        given = self._made_of(ahead, [kept.get() for kept in self._kept[: ahead.depth]])
        self._keep_newest(held)
        return given

    def computed(self, result: Any, ahead: Ahead, held: int) -> tuple[Any, int]:
        """What is given for the result of a forward that has run.

        Args:
            result: as it was returned. Copies are kept, since pipelines may change in place what a denoiser gave them.
            ahead: what is made of it and of earlier ones.
            held: how many results, the newest ones, later rows need.

        Returns:
            It, or what is made of it, and the bytes that it takes if it is kept.
        """
        leaves, self._structure = pytree.tree_flatten(result)
        if ahead != Ahead():
            result = self._made_of(ahead, [leaves, *(kept.get() for kept in self._kept[: ahead.depth - 1])])
        self._keep_newest(max(held - 1, 0))
        if not held:
            return result, 0
        kept = Kept(self._tally, self._storage)
        kept.keep(tuple(leaf.clone() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves))
        self._kept.insert(0, kept)
        return result, kept.size

    def free(self) -> None:
        """Forget everything."""
        self._keep_newest(0)

    def _keep_newest(self, count: int) -> None:
        for kept in self._kept[count:]:
            kept.free()
        del self._kept[count:]

    def _made_of(self, ahead: Ahead, outputs: Sequence[Sequence[Any]]) -> Any:
        leaves = [_ahead(ahead, *parts) for parts in zip(*outputs, strict=True)]
        return pytree.tree_unflatten(leaves, self._structure)


def _ahead(ahead: Ahead, newest: Any, before: Any = None, first: Any = None) -> Any:
    if not is_number(newest):
        return newest
    given = newest * ahead.scale
    if ahead.slope is not None:
        given = torch.add(given, newest - before, alpha=ahead.slope)
    if ahead.bend is not None:
        given = torch.add(given, before - first, alpha=ahead.bend)
    return given
