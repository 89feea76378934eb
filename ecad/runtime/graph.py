"""A denoiser's forward as a list of operators, from which whatever a row of a schedule makes dead can be left out.

Around a reused component much is computed that nobody reads: its norm, its shift and scale, the activation before a
reused projection, in a step that reuses everything the whole text stream. One forward is recorded with its components
as single calls; a row of a schedule is then a shorter list of the same operators on the same numbers, so images stay
the same bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils import _pytree as pytree

from ecad.runtime.plan import Action

_COMPUTES = (Action.COMPUTE, Action.KEEP)
_READS = (Action.REUSE, Action.FREE)


class Instruction(NamedTuple):
    """`out = op(*args)`, all of them places in an environment; `site` if it is the call of a component."""

    op: Callable[..., Any]
    args: tuple[int, ...]
    out: int
    site: int | None = None


class Call:
    """A component's call, with the arguments that are not tensors as they were.

    Arguments:
        module: the component.
        leaves, structure: its (args, kwargs), flattened.
    """

    def __init__(self, module: nn.Module, leaves: Sequence[Any], structure: pytree.TreeSpec) -> None:
        self.module, self.structure = module, structure
        self.leaves = [None if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        self.tensors = [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]

    def __call__(self, *tensors: torch.Tensor) -> list[Any]:
        """Call the component on these tensors; its hook keeps the output if it must."""
        leaves = self.leaves.copy()
        for index, tensor in zip(self.tensors, tensors, strict=True):
            leaves[index] = tensor
        args, kwargs = pytree.tree_unflatten(leaves, self.structure)
        return pytree.tree_leaves(self.module(*args, **kwargs))

    def kept(self) -> list[Any]:
        """What its hook has kept; the hook does not look at arguments when it reuses."""
        return pytree.tree_leaves(self.module.forward())


class Graph:
    """One forward.

    Arguments:
        instructions: in the order in which they ran.
        inputs: number of tensors that go in; they take the first places.
        constants: place -> parameter, buffer or literal.
        outputs: places of what it returns, flattened.
        structure: of what it returns.
        size: number of places.
    """

    def __init__(
        self,
        instructions: Sequence[Instruction],
        inputs: int,
        constants: dict[int, Any],
        outputs: Sequence[int],
        structure: pytree.TreeSpec,
        size: int,
    ) -> None:
        self.instructions, self.inputs, self.outputs, self.structure = instructions, inputs, outputs, structure
        self.environment = [constants.get(place) for place in range(size)]
        self.sites = [instruction.site for instruction in instructions if instruction.site is not None]
        self._programs: dict[bytes, Program] = {}

    def program(self, actions: Sequence[Action]) -> Program:
        """What is left of the forward under one row of a plan: `actions` of each site."""
        key = bytes(actions)
        if key not in self._programs:
            self._programs[key] = Program(self, actions)
        return self._programs[key]


class Program:
    """A forward without the operators that one row of a plan makes dead.

    Attributes:
        reads: sites whose kept output it reads.
        code: (operator, places of its arguments, place of its result, places that nobody reads any more).
    """

    def __init__(self, graph: Graph, actions: Sequence[Action]) -> None:
        self._graph = graph
        self.reads = [site for site in graph.sites if actions[site] in _READS]
        self.code: list[tuple[Callable[..., Any], tuple[int, ...], int, tuple[int, ...]]] = []
        live = set(graph.outputs)
        for op, args, out, site in reversed(graph.instructions):
            if site is None and out not in live:
                continue
            if site is not None and actions[site] not in _COMPUTES:
                if out not in live and actions[site] is not Action.FREE:
                    continue
                assert isinstance(op, Call)
                op, args = op.kept, ()
            self.code.append((op, args, out, tuple({*args, out} - live)))
            live.update(args)
        self.code.reverse()

    def run(self, tensors: Sequence[torch.Tensor]) -> Any:
        """What the forward returns.

        Arguments:
            tensors: those among the forward's arguments, flattened.
        """
        environment = self._graph.environment.copy()
        environment[: len(tensors)] = tensors
        for op, args, out, dead in self.code:
            environment[out] = op(*[environment[place] for place in args])
            for place in dead:
                environment[place] = None
        outputs = [environment[place] for place in self._graph.outputs]
        return pytree.tree_unflatten(outputs, self._graph.structure)
