"""What one row of a plan leaves of a recorded forward.

Around a reused component much is computed that nobody reads: its norm, its shift and scale, the activation before a
reused projection, in a row that reuses everything the whole text stream. A program is the same operators on the same
numbers without those, so images stay the same bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from ecad.runtime.replay.graph import Call, Graph, Instruction
from ecad.runtime.replay.rewrites import narrow, split_linears
from ecad.schedules.plan import Action

_COMPUTES = (Action.COMPUTE, Action.KEEP)
_READS = (Action.REUSE, Action.FREE)


class Program:
    """A forward under one row.

    Arguments:
        graph: the forward.
        actions: of each site.

    Attributes:
        reads: sites whose kept output it reads.
    """

    def __init__(self, graph: Graph, actions: Sequence[Action]) -> None:
        called = [instruction.site for instruction in graph.instructions if instruction.site is not None]
        self.reads = [site for site in called if actions[site] in _READS]
        constants = graph.constants.copy()
        code = _live([_acting(instruction, actions) for instruction in graph.instructions], graph.outputs)
        outputs = graph.outputs
        if graph.is_pure:  # a part taken early would not see what changes later
            code, outputs = narrow(graph, code, constants)
        code = _live(split_linears(graph, _live(code, outputs), constants), outputs)
        dead = _last_reads(code, outputs)
        self._code = [(i.op, i.args, i.out, places) for i, places in zip(code, dead, strict=True)]
        self._outputs, self._structure = outputs, graph.structure
        size = 1 + max([*constants, *(instruction.out for instruction in code)])
        self._environment = [constants.get(place) for place in range(size)]

    def run(self, tensors: Sequence[torch.Tensor]) -> Any:
        """What the forward returns.

        Arguments:
            tensors: those among the forward's arguments, flattened.
        """
        environment = self._environment.copy()
        environment[: len(tensors)] = tensors
        for op, args, out, dead in self._code:
            environment[out] = op(*[environment[place] for place in args])
            for place in dead:
                environment[place] = None
        return pytree.tree_unflatten([environment[place] for place in self._outputs], self._structure)


def _acting(instruction: Instruction, actions: Sequence[Action]) -> Instruction:
    """A component that computes is called, even if nobody reads it; another one gives what is kept, if anybody does."""
    op, _, out, site, _ = instruction
    if site is None:
        return instruction
    if actions[site] in _COMPUTES:
        return instruction._replace(always=True)
    assert isinstance(op, Call)
    return Instruction(op.kept, (), out, site, always=actions[site] is Action.FREE)


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
