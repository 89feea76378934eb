"""The denoiser's own output under a schedule that forecasts: where no component runs, the denoiser need not either."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _pytree as pytree

from ecad.runtime.hooks import Kept
from ecad.runtime.plan import Action


class Output:
    """What one pass's forwards return, from one row to the next.

    Arguments:
        kept: where its tensors are kept.
    """

    def __init__(self, kept: Kept) -> None:
        self.kept = kept
        self.action = Action.COMPUTE
        self._structure: Any = None

    def of(self, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """What this row's forward returns; it runs unless the plan says otherwise."""
        if self.action in (Action.REUSE, Action.FREE):
            given = pytree.tree_unflatten(_copies(self.kept.get()), self._structure)
            if self.action is Action.FREE:
                self.kept.release()
            return given
        result = forward(*args, **kwargs)
        if self.action is Action.KEEP:
            leaves, self._structure = pytree.tree_flatten(result)
            self.kept.keep(_copies(leaves))
        return result


def _copies(leaves: Any) -> tuple[Any, ...]:
    """Pipelines may change in place what a denoiser gave them."""
    return tuple(leaf.clone() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves)
