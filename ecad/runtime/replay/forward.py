"""The forward of a denoiser: as it is in rows that compute everything, without its dead operators in the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.utils import _pytree as pytree

from ecad.runtime.hooks import ComponentHook
from ecad.runtime.overrides import Override
from ecad.runtime.replay.graph import Graph
from ecad.runtime.replay.program import Program
from ecad.runtime.replay.trace import record
from ecad.runtime.tgate import second_half, twice
from ecad.schedules.plan import Action

# Forwards of so many shapes are known, and so many different rows of each; the oldest are forgotten.
_MOST_GRAPHS = 16
_MOST_PROGRAMS = 256
_COMPUTES = {Action.COMPUTE, Action.KEEP}
_LITERALS = (bool, int, float, str, torch.dtype, torch.device, type(None))


class Replay(Override):
    """Stands in for a denoiser's forward, on top of whatever others have put in its place.

    Set from outside before each forward: `actions`, those of the row that is running (None runs it as it is), and
    `one_half`, whether both halves of the batch are known to be the same.

    Arguments:
        module: the denoiser.
        answer: (forward, args, kwargs) -> what the forward returns; it may do without running it.
    """

    def __init__(self, module: nn.Module, answer: Callable[[Callable[..., Any], Any, Any], Any]) -> None:
        super().__init__(module, "forward")
        self._answer = answer
        self.rest()
        self._hooks: Sequence[ComponentHook] = ()
        self._known: _Known | None = None

    @property
    def is_alone(self) -> bool:
        """Whether nobody else stands in for the forward: what another does may be more than the module's own."""
        return self.previous is None

    def rest(self) -> None:
        """Run every forward as it is, until told otherwise."""
        self.actions: Sequence[Action] | None = None
        self.one_half = False

    def follow(self, hooks: Sequence[ComponentHook]) -> None:
        """Before each generation: the hooks of the components, by site; adapters may have changed the denoiser."""
        self._hooks = hooks
        self._known = _known_of(self.owner, [hook.owner for hook in hooks]) if self.is_alone else None

    def run(self, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return self._halved(*args, **kwargs)
        return self._answer(self._halved, args, kwargs)

    def _halved(self, *args: Any, **kwargs: Any) -> Any:
        if not self.one_half:
            return self._run(*args, **kwargs)
        args, kwargs = second_half((args, kwargs))
        return twice(self._run(*args, **kwargs))

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return self.original(*args, **kwargs)
        actions = self.actions
        if actions is None or self._known is None:
            return self.original(*args, **kwargs)
        leaves, structure = pytree.tree_flatten((args, kwargs))
        key = _key(leaves, structure)
        if key is None:
            return self.original(*args, **kwargs)
        if _COMPUTES.issuperset(actions):
            if key in self._known.graphs:
                return self.original(*args, **kwargs)
            return self._record(key, leaves, structure)
        program = self._known.program(key, actions)
        # A block that was left out so far has nothing to give, and computes.
        if program is None or any(self._hooks[site].kept.output is None for site in program.reads):
            return self.original(*args, **kwargs)
        return program.run([leaf for leaf in leaves if isinstance(leaf, torch.Tensor)])

    def _record(self, key: object, leaves: Sequence[Any], structure: pytree.TreeSpec) -> Any:
        components = {site: hook.owner for site, hook in enumerate(self._hooks)}
        result, graph = record(self.original, components, leaves, structure)
        if self._known is not None:
            self._known.add(key, graph)
        return result


class _Known:
    """A denoiser's graphs and programs by what goes into its forward, right as long as it has this signature."""

    def __init__(self) -> None:
        self.signature: object = None
        self.graphs: dict[object, tuple[Graph, dict[bytes, Program]] | None] = {}

    def add(self, key: object, graph: Graph | None) -> None:
        self.graphs[key] = None if graph is None else (graph, {})
        if len(self.graphs) > _MOST_GRAPHS:
            del self.graphs[next(iter(self.graphs))]

    def program(self, key: object, actions: Sequence[Action]) -> Program | None:
        if (entry := self.graphs.get(key)) is None:
            return None
        graph, programs = entry
        row = bytes(actions)
        if row not in programs:
            programs[row] = Program(graph, actions)
            if len(programs) > _MOST_PROGRAMS:
                del programs[next(iter(programs))]
        return programs[row]


# Beside the denoisers, not in them: schedules come and go, and copies of a denoiser start afresh.
_KNOWN: WeakKeyDictionary[nn.Module, _Known] = WeakKeyDictionary()


def _known_of(module: nn.Module, components: Sequence[nn.Module]) -> _Known | None:
    signature = _signature(module, components)
    if signature is None:
        return None
    known = _KNOWN.setdefault(module, _Known())
    if known.signature != signature:
        known.graphs.clear()
        known.signature = signature
    return known


def _signature(module: nn.Module, components: Sequence[nn.Module]) -> object | None:
    """What a recorded forward relies on beside its inputs; None if somebody else takes part in the forward."""
    parts: list[object] = [id(component) for component in components]
    for part in _outside(module, set(components)):
        foreign = part is not module and ("forward" in vars(part) or part._forward_hooks or part._forward_pre_hooks)
        adapter = type(part).__module__.startswith("peft.")  # its strength is not a tensor
        if part.training or foreign or adapter or part._compiled_call_impl is not None:
            return None
        tensors = (*part._parameters.values(), *part._buffers.values())
        parts += [id(part), *(_identity(tensor) for tensor in tensors if tensor is not None)]
    return tuple(parts)


def _identity(tensor: torch.Tensor) -> object:
    version = None if tensor.is_inference() else tensor._version  # rises when its values are changed in place
    return id(tensor), tensor.data_ptr(), tensor.dtype, version


def _outside(module: nn.Module, components: set[nn.Module]) -> Iterator[nn.Module]:
    yield module
    for child in module.children():
        if child not in components:
            yield from _outside(child, components)


def _key(leaves: Sequence[Any], structure: pytree.TreeSpec) -> object | None:
    described: list[object] = []
    for leaf in leaves:
        if isinstance(leaf, torch.Tensor):
            if torch.is_autocast_enabled(leaf.device.type):
                return None  # operators are recorded below it, and would pass it a second time
            described.append((leaf.shape, leaf.stride(), leaf.dtype, leaf.device))
        elif isinstance(leaf, _LITERALS):
            described.append((type(leaf), leaf))
        else:
            return None
    return structure, tuple(described), torch.is_inference_mode_enabled()
