"""What one row of a plan leaves of a recorded forward.

Around a reused component much is computed that nobody reads: its norm, its shift and scale, the activation before a
reused projection, in a row that reuses everything the whole text stream. A program is the same operators on the same
numbers without those, so images stay the same bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch.utils import _pytree as pytree

from ecad.runtime.passes import Forward
from ecad.runtime.replay.graph import Graph, Instruction
from ecad.runtime.replay.rewrites import narrow, split_linears
from ecad.schedules.plan import Action

_COMPUTES = (Action.COMPUTE, Action.KEEP)
_READS = (Action.REUSE, Action.FREE)
# Place of the running `Forward`: the last one, however many there are.
_FORWARD = -1


class Program:
    """A forward under one row.

    Args:
        graph: the forward.
        actions: of each site.
        constants: of the graph, as `Graph.bind` gives them; not kept.

    Attributes:
        reads: sites whose kept output has to be there.
    """

    def __init__(self, graph: Graph, actions: Sequence[Action], constants: Mapping[int, Any]) -> None:
        called = [instruction.site for instruction in graph.instructions if instruction.site is not None]
        self.reads = [site for site in called if actions[site] in _READS]
        values = dict(constants)
        code = _live([_acting(instruction, actions) for instruction in graph.instructions], graph.outputs)
        outputs = graph.outputs
        if graph.is_pure:  # a part taken early would not see what changes later
            code, outputs = narrow(graph, code, values)
        code, self._parts = split_linears(graph, _live(code, outputs), values)
        code, self._kept = _apart(_live(code, outputs), values)
        dead = _last_reads(code, outputs)
        self._code = [(i.op, i.args, i.out, places) for i, places in zip(code, dead, strict=True)]
        self._outputs, self._structure, self._inputs = outputs, graph.structure, graph.inputs
        kept = [place for _, _, place in self._kept]
        made = [instruction.out for instruction in (*code, *self._parts)]
        self._size = 2 + max([*values, *made, *kept, graph.inputs])
        # What `narrow` and `split_linears` have added.
        self._literals = {place: value for place, value in values.items() if place not in constants}
        self._read = {place for _, args, *_ in self._code for place in args} | set(outputs)
        self._environment: list[Any] | None = None

    @property
    def is_bound(self) -> bool:
        """Whether it can run."""
        return self._environment is not None

    def bind(self, constants: Mapping[int, Any]) -> None:
        """Take the values of constants, until `release`.

        Args:
            constants: of the graph, as `Graph.bind` gives them.
        """
        values = {**constants, **self._literals}
        for part in self._parts:
            values[part.out] = part.op(*[values[place] for place in part.args])
        self._environment = [values.get(place) if place in self._read else None for place in range(self._size)]

    def release(self) -> None:
        """Let go of every tensor."""
        self._environment = None

    def run(self, forward: Forward, kept: dict[int, Any], tensors: Sequence[torch.Tensor]) -> Any:
        """What the forward returns.

        Args:
            forward: that is running.
            kept: site -> output, of the sites that it reads; emptied, so that memory is free after its last read.
            tensors: those among the arguments, flattened.
        """
        assert self._environment is not None
        environment = self._environment.copy()
        environment[: self._inputs], environment[_FORWARD] = tensors, forward
        for site, index, place in self._kept:
            output = kept[site]
            environment[place] = output if isinstance(output, torch.Tensor) else pytree.tree_leaves(output)[index]
        kept.clear()
        for op, args, out, dead in self._code:
            environment[out] = op(*[environment[place] for place in args])
            for place in dead:
                environment[place] = None
        return pytree.tree_unflatten([environment[place] for place in self._outputs], self._structure)


def _acting(instruction: Instruction, actions: Sequence[Action]) -> Instruction:
    """A component that computes is called, even if nobody reads it; of another one what is kept is given."""
    if instruction.site is None:
        return instruction
    if actions[instruction.site] in _COMPUTES:
        return instruction._replace(always=True)
    return instruction._replace(op=_given, args=(), always=actions[instruction.site] is Action.FREE)


def _given() -> None:
    """Stands for the call of a component whose output is kept."""


def _release(site: int, forward: Forward) -> None:
    """Let go of what is kept for a component, where it would be called for the last time before it computes again."""
    forward.release(site)


def _apart(
    code: Sequence[Instruction], values: Mapping[int, Any]
) -> tuple[list[Instruction], list[tuple[int, int, int]]]:
    """Set apart what is kept: (site, which of the tensors of its output, place of that tensor)."""
    sites = {instruction.out: instruction.site for instruction in code if instruction.op is _given}
    left, kept = [], []
    for instruction in code:
        site = sites.get(instruction.args[0]) if instruction.args else None
        if site is not None:
            kept.append((site, values[instruction.args[1]], instruction.out))
        elif instruction.op is not _given:
            left.append(instruction)
        elif instruction.always and instruction.site is not None:
            left.append(instruction._replace(op=partial(_release, instruction.site), args=(_FORWARD,)))
    return left, kept


def _live(instructions: Sequence[Instruction], outputs: Sequence[int]) -> list[Instruction]:
    read, live = set(outputs), []
    for instruction in reversed(instructions):
        if instruction.always or instruction.out in read:
            live.append(instruction)
            read.update(instruction.args)
    return live[::-1]


def _last_reads(code: Sequence[Instruction], outputs: Sequence[int]) -> list[tuple[int, ...]]:
    """Places that nobody reads after each instruction."""
    read, dead = set(outputs), []
    for instruction in reversed(code):
        dead.append(tuple({*instruction.args, instruction.out} - read))
        read.update(instruction.args)
    return dead[::-1]
