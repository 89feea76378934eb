"""The recorded forwards of a denoiser: as it is in rows that compute everything, without dead operators in the others.

They belong to a cache that is enabled, hold no tensor between two generations, and are checked before each use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils import _pytree as pytree

from ecad.runtime.passes import Forward
from ecad.runtime.replay.facts import Facts, Unrecordable
from ecad.runtime.replay.graph import Graph
from ecad.runtime.replay.program import Program
from ecad.runtime.replay.trace import record
from ecad.schedules.plan import Action

# Forwards of so many shapes are known, and so many different rows of each; the oldest are forgotten.
_MOST_GRAPHS = 16
_MOST_PROGRAMS = 256
_LITERALS = (bool, int, float, str, torch.dtype, torch.device, type(None))


class Given(NamedTuple):
    """A forward's arguments, flattened.

    Attributes:
        key: what a recording has to have been made with; None if no recording can stand for the forward.
    """

    leaves: list[Any]
    structure: pytree.TreeSpec
    key: object | None

    @property
    def tensors(self) -> list[torch.Tensor]:
        """Those among the arguments."""
        return [leaf for leaf in self.leaves if isinstance(leaf, torch.Tensor)]


def given(args: Sequence[Any], kwargs: dict[str, Any]) -> Given:
    """Describe a forward's arguments.

    Args:
        args, kwargs: of the forward.
    """
    leaves, structure = pytree.tree_flatten((args, kwargs))
    return Given(leaves, structure, _key(leaves, structure))


class Recordings:
    """What was recorded of one denoiser's forwards.

    Args:
        denoiser: the module.
    """

    def __init__(self, denoiser: nn.Module) -> None:
        self._denoiser = denoiser
        self._facts: Facts | None = None
        self._graphs: dict[object, _Recording | None] = {}
        self._pointers: list[int] | None = None
        # Forwards that were watched, whether or not they can be replayed.
        self._watched: set[object] = set()

    def record(
        self, run: Callable[..., Any], call: Given, forward: Forward, components: Sequence[nn.Module], alone: bool
    ) -> Any:
        """Run the first forward of a pass, and write it down if it can be replayed and was not before.

        Args:
            run: the denoiser's forward.
            call: its arguments.
            forward: of its pass.
            components: modules by site.
            alone: nobody else stands in for the denoiser's forward.

        Returns:
            What the forward returns.
        """
        facts = self._facts_of(components) if alone and call.key is not None else None
        known = self._watched if facts is None else self._graphs if facts is self._facts else ()
        if call.key in known:
            args, kwargs = pytree.tree_unflatten(call.leaves, call.structure)
            return run(*args, **kwargs)
        result, graph = record(run, components, call.leaves, call.structure, forward, facts)
        if len(self._watched) > _MOST_PROGRAMS:
            self._watched.clear()
        self._watched.add(call.key)
        if facts is None or not facts.hold():
            return result
        if facts is not self._facts:
            self._facts = facts
            self._graphs.clear()
            self.release()
        self._graphs[call.key] = None if graph is None else _Recording(graph)
        if len(self._graphs) > _MOST_GRAPHS:
            del self._graphs[next(iter(self._graphs))]
        return result

    def program(self, call: Given, actions: Sequence[Action]) -> Program | None:
        """What a forward comes down to; None if it has to be run as it is.

        Args:
            call: its arguments.
            actions: of each site.
        """
        recording = self._graphs.get(call.key)
        if recording is None or self._facts is None or not self._facts.hold():
            return None
        if self._pointers is None or self._facts.pointers() != self._pointers:
            self.release()
            tensors = self._facts.tensors()
            if not self._are_alike(tensors):
                return None
            self._pointers = self._facts.pointers()
        if recording.constants is None:
            recording.constants = recording.graph.bind(self._facts.tensors())
        return recording.program(actions)

    def release(self) -> None:
        """Let go of every tensor; they are found again when they are needed."""
        self._pointers = None
        for recording in self._graphs.values():
            if recording is not None:
                recording.release()

    def _are_alike(self, tensors: list[torch.Tensor]) -> bool:
        assert self._facts is not None
        try:
            return self._facts.are_alike(tensors)
        except Unrecordable:
            return False

    def _facts_of(self, components: Sequence[nn.Module]) -> Facts | None:
        if self._facts is not None and self._facts.hold() and self._are_alike(self._facts.tensors()):
            return self._facts
        try:
            return Facts(self._denoiser, components)
        except Unrecordable:
            return None


class _Recording:
    """One graph, and what each distinct row leaves of it."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.constants: dict[int, Any] | None = None
        self._programs: dict[bytes, Program] = {}

    def program(self, actions: Sequence[Action]) -> Program:
        row = bytes(actions)
        assert self.constants is not None
        if row not in self._programs:
            self._programs[row] = Program(self.graph, actions, self.constants)
            if len(self._programs) > _MOST_PROGRAMS:
                del self._programs[next(iter(self._programs))]
        program = self._programs[row]
        if not program.is_bound:
            program.bind(self.constants)
        return program

    def release(self) -> None:
        self.constants = None
        for program in self._programs.values():
            program.release()


def _key(leaves: Sequence[Any], structure: pytree.TreeSpec) -> object | None:
    described: list[object] = []
    places: dict[int, int] = {}
    for place, leaf in enumerate(leaves):
        if isinstance(leaf, torch.Tensor):
            if type(leaf) is not torch.Tensor:
                return None
            if not leaf.is_meta and torch.is_autocast_enabled(leaf.device.type):
                return None  # operators are recorded below it, and would pass it a second time
            # One tensor in two places is another forward than two tensors.
            first = places.setdefault(id(leaf), place)
            described.append((leaf.shape, leaf.stride(), leaf.dtype, leaf.device, first))
        elif isinstance(leaf, _LITERALS):
            described.append((type(leaf), leaf))
        else:
            return None
    return structure, tuple(described), torch.is_inference_mode_enabled(), torch.get_default_dtype()
