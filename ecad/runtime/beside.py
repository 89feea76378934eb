"""Networks that run beside a denoiser, ControlNets: left out where the denoiser does not run."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from ecad.runtime.kept_outputs import tensors_in
from ecad.runtime.overrides import Around

if TYPE_CHECKING:
    from ecad.runtime.generation import Generation

# The attributes of pipelines that hold them.
NAMES = ("controlnet",)


class NetworksBeside:
    """The networks beside the denoisers of one pipeline.

    Args:
        generation: tells the generation that calls them.
    """

    def __init__(self, generation: Callable[[], Generation | None]) -> None:
        self._generation = generation
        self._networks: list[NetworkBeside] = []

    def attach(self, pipe: Any, of: object) -> None:
        """Put a hook on top of whatever else wraps each of them by now.

        Args:
            pipe: the pipeline.
            of: the run that the hooks belong to.
        """
        found = [one for name in NAMES if isinstance(one := getattr(pipe, name, None), torch.nn.Module)]
        if [one.owner for one in self._networks] == found and all(one.is_on_top for one in self._networks):
            return
        self.detach()
        self._networks = [NetworkBeside(one, self._generation) for one in found]
        for network in self._networks:
            network.of = of

    def detach(self) -> None:
        """Take the hooks off."""
        for network in self._networks:
            network.remove()
        self._networks = []


class NetworkBeside(Around):
    """Leaves out a network's forwards in rows in which no pass of the denoiser runs.

    They return zeros there, of the shapes that a forward with inputs of the same shapes returned before; nobody reads
    them.

    Args:
        module: the network.
        generation: tells the generation that calls it.
    """

    def __init__(self, module: torch.nn.Module, generation: Callable[[], Generation | None]) -> None:
        super().__init__(module, "forward", self._leave_out_or_run)
        self._find_generation = generation
        # Weak: what a generation keeps is freed when it ends, not when the next one begins.
        self._seen: weakref.ref[Generation] | None = None
        # Number of the forward in its row, and shapes of its inputs -> what makes zeros like its output.
        self._zeros: dict[object, Any] = {}
        self._row: int | None = None
        self._number = 0

    def _leave_out_or_run(self, original: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        generation = self._find_generation()
        if generation is None or torch.is_grad_enabled():
            return original(*args, **kwargs)
        row = generation.rows.now
        if self._seen is None or self._seen() is not generation:
            self._seen, self._zeros, self._number = weakref.ref(generation), {}, 0
        elif row != self._row:
            self._number = 0
        else:
            self._number += 1
        self._row = row
        key = self._number, tuple(tensor.shape for tensor in tensors_in([*args, *kwargs.values()]))
        if row is not None and key in self._zeros and generation.rests(row):
            generation.left_out.add(row)
            return pytree.tree_map_only(partial, lambda make: make(), self._zeros[key])
        result = original(*args, **kwargs)
        self._zeros[key] = pytree.tree_map_only(torch.Tensor, _zeros_like, result)
        return result


def _zeros_like(tensor: torch.Tensor) -> Callable[[], torch.Tensor]:
    return partial(torch.zeros, tensor.shape, dtype=tensor.dtype, device=tensor.device)
