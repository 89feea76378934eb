"""The forward of one component: computes, or returns what it returned before."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ecad.runtime.kept_outputs import Kept
from ecad.runtime.overrides import Override
from ecad.schedules.plan import Action

# Globals are looked up faster than members of an enum.
_COMPUTE, _KEEP, _FREE, _SKIP = Action.COMPUTE, Action.KEEP, Action.FREE, Action.SKIP
_REUSES = frozenset((Action.REUSE, Action.FREE))


class ComponentHook(Override):
    """The forward of one component: computes, or returns what it returned before.

    It decides nothing. What to do is set from outside before each forward of the denoiser.
    """

    def __init__(self, module: nn.Module, kept: Kept) -> None:
        super().__init__(module, "forward")
        self.rest(kept)

    def rest(self, kept: Kept) -> None:
        """Compute every call, until told otherwise."""
        self.act(_COMPUTE, kept)

    def act(self, action: Action, kept: Kept) -> None:
        """Do this at the next call.

        Arguments:
            action: of the plan.
            kept: where the output is kept, or is to be.
        """
        self.action, self.kept = action, kept
        # A compiled block is made once for each combination of what it sees change, so it is shown two bools.
        self.skips, self.reuses = action is _SKIP, action in _REUSES

    def settle(self) -> None:
        """After a forward: a compiled one has left every output here, needed or not."""
        if self.action is _COMPUTE:
            self.kept.free()
        elif self.action is _FREE:
            self.kept.release()
        else:
            self.kept.settle()

    def remove(self) -> None:
        self.action, self.skips, self.reuses = _COMPUTE, False, False
        super().remove()

    def run(self, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return self._compiled(*args, **kwargs)
        action = self.action
        if action is _COMPUTE:
            return self.original(*args, **kwargs)
        if action is _SKIP:
            return empty_output(*args, **kwargs)
        kept = self.kept
        output = None if action is _KEEP else kept.get()
        if output is None:  # at the first visit of a block that this pass left out before
            output = self.original(*args, **kwargs)
            if action is not _FREE:
                kept.keep(output)
        elif action is _FREE:
            kept.release()
        return output

    def _compiled(self, *args: Any, **kwargs: Any) -> Any:
        if self.skips:
            return empty_output(*args, **kwargs)
        if self.reuses and (output := self.kept.get()) is not None:
            return output
        output = self.original(*args, **kwargs)
        self.kept.output = output
        return output


def empty_output(*args: Any, **kwargs: Any) -> Any:
    """Stand for the output of an attention or MLP that nobody reads: its batch, length, device and dtype, no width.

    Whatever is computed from it on the way to the reused reader (an activation, a concatenation) costs nothing.

    >>> empty_output(torch.ones(2, 5, 64)).shape
    torch.Size([2, 5, 0])
    """
    hidden = args[0] if args else kwargs["hidden_states"]
    text = kwargs.get("encoder_hidden_states")
    return hidden[..., :0] if text is None else (hidden[..., :0], text[..., :0])
