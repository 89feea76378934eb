"""The forward of one component: computes, or returns what it returned before."""

from __future__ import annotations

from threading import local
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ecad.runtime.overrides import Override

if TYPE_CHECKING:
    from ecad.runtime.passes import Forward


class Now(local):
    """What a denoiser does in the thread that asks.

    Attributes:
        forward: the forward that runs under a schedule, if one does.
        context: what diffusers calls the pass that runs (`cache_context`), if it says so.
    """

    forward: Forward | None = None
    context: str | None = None


class ComponentHook(Override):
    """Stands in for a component's forward, and asks the denoiser's forward that is running in its thread what to do.

    A compiled block cannot ask: what it does is set beforehand, by `instruct`, and what it computed is collected
    afterwards, by `collect`.

    Args:
        module: the component.
        site: its place among the denoiser's sites.
        now: of its denoiser.
    """

    def __init__(self, module: nn.Module, site: int, now: Now) -> None:
        super().__init__(module, "forward")
        self.site, self.now = site, now
        self.rest()

    def rest(self) -> None:
        """Compute every call of a compiled block, until told otherwise."""
        # A compiled block is made once for each combination of what it sees change: two bools, and lists that are as
        # long as the component is called often.
        self.skips = self.reuses = False
        self.given: list[Any] = []
        self.taken: list[Any] = []
        self.number = 0

    def remove(self) -> None:
        self.rest()
        self.now = Now()
        super().remove()

    def run(self, *args: object, **kwargs: object) -> object:
        if torch.compiler.is_compiling():
            return self._compiled(*args, **kwargs)
        forward = self.now.forward
        if forward is None:
            return self.original(*args, **kwargs)
        return forward.call(self.site, self.original, args, kwargs)

    def _compiled(self, *args: object, **kwargs: object) -> object:
        if self.skips:
            return empty_output(*args, **kwargs)
        if self.reuses and self.number < len(self.given):
            self.number += 1
            return self.given[self.number - 1]
        output = self.original(*args, **kwargs)
        # A copy, since the block may go on to change the output in place.
        self.taken.append(_copied(output))
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


def _copied(output: Any) -> Any:
    if isinstance(output, (tuple, list)):
        return tuple([_copied(part) for part in output])
    return output.clone() if isinstance(output, torch.Tensor) else output
