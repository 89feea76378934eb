"""The recorded forwards of a denoiser: as it is in rows that compute everything, without dead operators in the others.

They belong to a cache that is enabled, hold no tensor between two generations, and are checked before each use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from ecad.runtime.inputs import Inputs
from ecad.runtime.passes import Forward
from ecad.runtime.replay.facts import Facts, Unrecordable
from ecad.runtime.replay.fused import Fuser
from ecad.runtime.replay.graph import Graph
from ecad.runtime.replay.program import Program
from ecad.runtime.replay.trace import record
from ecad.schedules.plan import Action

# Forwards of so many shapes are known, and so many different rows of each; the oldest are forgotten.
_MOST_GRAPHS = 16
_MOST_PROGRAMS = 256
_LITERALS = (bool, int, float, str, torch.dtype, torch.device, type(None))


class Recordings:
    """What was recorded of one denoiser's forwards.

    Args:
        denoiser: the module.
        fuse: whether to compile the sums of rows that compute no component.
    """

    def __init__(self, denoiser: nn.Module, fuse: bool = False) -> None:
        self._denoiser = denoiser
        self._fuser = Fuser() if fuse else None
        self._facts: Facts | None = None
        self._graphs: dict[object, _Recording | None] = {}
        self._pointers: list[int] | None = None
        # Forwards that were watched, whether or not they can be replayed.
        self._watched: set[object] = set()

    def record(
        self, run: Callable[..., Any], inputs: Inputs, forward: Forward, components: Sequence[nn.Module], alone: bool
    ) -> Any:
        """Run the first forward of a pass, and write it down if it can be replayed and was not before.

        Args:
            run: the denoiser's forward.
            inputs: its arguments.
            forward: of its pass.
            components: modules by site.
            alone: nobody else stands in for the denoiser's forward.

        Returns:
            What the forward returns.
        """
        key = _key(inputs)
        facts = self._facts_of(components) if alone and key is not None else None
        known = self._watched if facts is None else self._graphs if facts is self._facts else ()
        if key in known:
            return run(*inputs.args, **inputs.kwargs)
        result, graph = record(run, components, inputs, forward, facts)
        if len(self._watched) > _MOST_PROGRAMS:
            self._watched.clear()
        self._watched.add(key)
        if facts is None or not facts.hold():
            return result
        if facts is not self._facts:
            self._facts = facts
            self._graphs.clear()
            self.release()
        self._graphs[key] = None if graph is None else _Recording(graph, self._fuser)
        if len(self._graphs) > _MOST_GRAPHS:
            del self._graphs[next(iter(self._graphs))]
        return result

    def program(self, inputs: Inputs, actions: Sequence[Action]) -> Program | None:
        """What a forward comes down to; None if it has to be run as it is.

        Args:
            inputs: its arguments.
            actions: of each site.
        """
        recording = self._graphs.get(_key(inputs))
        if recording is None or self._facts is None or not self._facts.hold():
            return None
        pointers = self._facts.pointers()
        if pointers != self._pointers:
            self.release()
            if not self._are_alike(self._facts.tensors()):
                return None
            self._pointers = pointers
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

    def __init__(self, graph: Graph, fuser: Fuser | None) -> None:
        self.graph, self._fuser = graph, fuser
        self.constants: dict[int, Any] | None = None
        self._programs: dict[bytes, Program] = {}

    def program(self, actions: Sequence[Action]) -> Program:
        row = bytes(actions)
        assert self.constants is not None
        if row not in self._programs:
            self._programs[row] = Program(self.graph, actions, self.constants, self._fuser)
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


def _key(inputs: Inputs) -> object | None:
    """What a recording has to have been made with; None if no recording can stand for the forward."""
    devices = {tensor.device for tensor in inputs.tensors}
    if any(torch.is_autocast_enabled(device.type) for device in devices if device.type != "meta"):
        return None  # operators are recorded below it, and would pass it a second time
    described: list[object] = [len(inputs.args), torch.is_inference_mode_enabled(), torch.get_default_dtype()]
    places: dict[int, int] = {}
    for place, (name, value, _) in enumerate(inputs.leaves):
        kind = type(value)
        if kind is torch.Tensor:
            # One tensor in two places is another forward than two tensors.
            first = places.setdefault(id(value), place)
            described.append((name, value.shape, value.stride(), value.dtype, value.device, first))
        elif isinstance(value, _LITERALS):
            described.append((name, kind, value))
        elif kind in (list, tuple, dict):
            described.append((name, kind, len(value)))
        else:
            return None
    return tuple(described)
