"""The denoiser's own output under a schedule that forecasts: where no component runs, the denoiser need not either."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _pytree as pytree

from ecad.runtime.kept_outputs import CacheStats, Kept, Line, Storage
from ecad.schedules.forecast import Ahead
from ecad.schedules.plan import Action


class Output:
    """What one pass's forwards return, from one row to the next.

    Arguments:
        stats, storage: of its kept tensors.

    Attributes:
        action, line, ahead: what to do in the row that is running, what with an output that it computes, and what
            stands for one that it does not.
    """

    def __init__(self, stats: CacheStats, storage: Storage | None) -> None:
        self.action, self.line, self.ahead = Action.COMPUTE, Line(), Ahead()
        self._last, self._before = Kept(stats, storage), Kept(stats, storage)
        self._is_remembered = False
        self._structure: Any = None

    def of(self, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """What this row's forward returns; it runs unless the plan says otherwise."""
        if self.action in (Action.REUSE, Action.FREE):
            given = self._forecast()
            if self.action is Action.FREE:
                self._before.release()
                if not self._is_remembered:
                    self._last.release()
            return given
        result = forward(*args, **kwargs)
        if self.action is Action.KEEP:
            if self.line.gap:
                self._last, self._before = self._before, self._last
            self._is_remembered = self.line.remembered
            leaves, self._structure = pytree.tree_flatten(result)
            # Pipelines may change in place what a denoiser gave them.
            self._last.keep(tuple(leaf.clone() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves))
        return result

    def free(self) -> None:
        """Forget everything."""
        self._last.free()
        self._before.free()

    def _forecast(self) -> Any:
        last = self._last.get()
        if self.ahead.slope is None:
            leaves = [_scaled(leaf, self.ahead.scale) for leaf in last]
        else:
            leaves = [_ahead(*pair, self.ahead) for pair in zip(last, self._before.get(), strict=True)]
        return pytree.tree_unflatten(leaves, self._structure)


def _scaled(last: Any, scale: float) -> Any:
    return last * scale if _is_number(last) else last


def _ahead(last: Any, before: Any, ahead: Ahead) -> Any:
    if not _is_number(last):
        return last
    return torch.add(last * ahead.scale, last - before, alpha=ahead.slope)


def _is_number(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
