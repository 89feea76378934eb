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
from ecad.runtime.replay.graph import Graph, Instruction, kept
from ecad.runtime.replay.rewrites import narrow, split_linears
from ecad.schedules.plan import Action

_COMPUTES = (Action.COMPUTE, Action.KEEP)
_READS = (Action.REUSE, Action.FREE)


class Program:
    """A forward under one row.

    Args:
        graph: the forward.
        actions: of each site.
        constants: of the graph, as `Graph.bind` gives them; not kept.

    Attributes:
        reads: sites whose kept output it reads.
    """

    def __init__(self, graph: Graph, actions: Sequence[Action], constants: Mapping[int, Any]) -> None:
        called = [instruction.site for instruction in graph.instructions if instruction.site is not None]
        self.reads = [site for site in called if actions[site] in _READS]
        values = dict(constants)
        code = _live(
            [_acting(instruction, actions, graph.forward) for instruction in graph.instructions], graph.outputs
        )
        outputs = graph.outputs
        if graph.is_pure:  # a part taken early would not see what changes later
            code, outputs = narrow(graph, code, values)
        code, self._parts = split_linears(graph, _live(code, outputs), values)
        code = _live(code, outputs)
        dead = _last_reads(code, outputs)
        self._code = [(i.op, i.args, i.out, places) for i, places in zip(code, dead, strict=True)]
        self._outputs, self._structure, self._inputs = outputs, graph.structure, graph.forward + 1
        self._size = 1 + max([*values, *(instruction.out for instruction in (*code, *self._parts)), graph.forward])
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

    def run(self, forward: Forward, tensors: Sequence[torch.Tensor]) -> Any:
        """What the forward returns.

        Args:
            forward: that is running.
            tensors: those among its arguments, flattened.
        """
        assert self._environment is not None
        environment = self._environment.copy()
        environment[: self._inputs] = [*tensors, forward]
        for op, args, out, dead in self._code:
            environment[out] = op(*[environment[place] for place in args])
            for place in dead:
                environment[place] = None
        return pytree.tree_unflatten([environment[place] for place in self._outputs], self._structure)


def _acting(instruction: Instruction, actions: Sequence[Action], forward: int) -> Instruction:
    """A component that computes is called, even if nobody reads it; another one gives what is kept, if anybody does."""
    _, _, out, site, _ = instruction
    if site is None:
        return instruction
    if actions[site] in _COMPUTES:
        return instruction._replace(always=True)
    return Instruction(partial(kept, site), (forward,), out, site, always=actions[site] is Action.FREE)


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
