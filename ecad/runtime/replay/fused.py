"""The gates and sums of a row that computes no component, compiled into few kernels.

As operators, each reused output is read, multiplied, written, read and added. Compiled, it is read once. Only operators
that round once are compiled (sums, products, conversions) and views between them: norms and matrix products add up in
an order of their own. Inductor is told to round as operators do, and what it makes is compared with the operators once.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import fx, nn
from torch.overrides import _get_current_function_mode
from torch.utils._python_dispatch import _get_current_dispatch_mode

from ecad.errors import EcadWarning
from ecad.runtime.replay.graph import Graph, Instruction
from ecad.runtime.replay.operators import is_view

_aten = torch.ops.aten
_ROUND_ONCE = {_aten.add.Tensor, _aten.sub.Tensor, _aten.mul.Tensor}
# Fewer operators are not worth a compilation, and a denoiser's rows not more of them.
_FEWEST_OPERATORS, _MOST_COMPILED = 8, 16
# Intermediate sums are written after so many reads (by default 4), which would double the bytes. A CUDA graph would
# copy every kept output into memory of its own first.
_OPTIONS = {"emulate_precision_casts": True, "realize_reads_threshold": 32, "triton.cudagraphs": False}
_KIND = operator.attrgetter("dtype", "device")

Backend = Callable[[fx.GraphModule, Sequence[torch.Tensor]], Callable[..., Any]]


def inductor(module: fx.GraphModule, examples: Sequence[torch.Tensor]) -> Callable[..., Any]:
    """Compile with inductor, rounding as operators do.

    `torch.compile` would look at every tensor again in each call, which takes as long as launching the operators.
    """
    from torch import _inductor

    compiled: Callable[..., Any] = _inductor.compile(module, list(examples), options=_OPTIONS)
    return compiled


class Fuser:
    """Compiles the sums of one denoiser's rows, until something speaks against it.

    Args:
        backend: compiles a graph; None for `inductor`.
    """

    def __init__(self, backend: Backend | None = None) -> None:
        self.backend = backend or inductor
        self.is_off = False
        self._left = _MOST_COMPILED

    def fuse(
        self, graph: Graph, code: Sequence[Instruction], outputs: Sequence[int], values: dict[int, Any]
    ) -> list[Instruction]:
        """Put sums next to one another, as far as they wait for nothing else, and compile them.

        Args:
            graph: where the code comes from; rows of one graph share what is compiled of the same sums.
            code: of a row, in order; it calls no component and changes nothing in place.
            outputs: places of what the forward returns.
            values: place -> constant; those of new instructions are added.

        Returns:
            The same, with each compiled part as one instruction.
        """
        if self.is_off:
            return list(code)
        # Outputs that are let go of here are so after the row, too; until then compiled sums need them all.
        code = [instruction for instruction in code if instruction.site is None]
        rewritten = []
        for part in _parts(code):
            sums = [instruction for instruction in part if _rounds_once(instruction)]
            if len(sums) >= _FEWEST_OPERATORS:
                inside, after = _without_last_views(part)
                outside = {place for other in code if other not in inside for place in other.args}
                rewritten += [*self._compiled(graph, inside, outside.union(outputs), values), *after]
            else:
                rewritten += part
        return rewritten

    def turn_off(self, why: str) -> None:
        """Run operators from now on, and say so once."""
        if not self.is_off:
            self.is_off = True
            warnings.warn(EcadWarning(f"rows are not fused: {why}"), stacklevel=2)

    def _compiled(
        self, graph: Graph, code: Sequence[Instruction], read: set[int], values: dict[int, Any]
    ) -> list[Instruction]:
        made = {instruction.out for instruction in code}
        tensors = dict.fromkeys(place for _, args, *_ in code for place in args)
        inputs = [place for place in tensors if place not in made and not _is_literal(place, values)]
        given = [instruction.out for instruction in code if instruction.out in read]
        module = _as_module(code, inputs, given, values)
        # The code is the same for rows that differ in what they let go of.
        if module.code not in graph.fused:
            if not self._left:
                return list(code)
            self._left -= 1
            graph.fused[module.code] = FusedSums(module, self)
        place = 1 + max([graph.size, *values, *made, *tensors, *read])
        rewritten = [Instruction(graph.fused[module.code], tuple(inputs), place)]
        for index, out in enumerate(given):
            values[place + 1 + index] = index
            rewritten.append(Instruction(operator.getitem, (place, place + 1 + index), out))
        return rewritten


class FusedSums:
    """Operators that run as compiled kernels, if these give the same bits.

    Args:
        module: the operators.
        fuser: of the denoiser.
    """

    def __init__(self, module: fx.GraphModule, fuser: Fuser) -> None:
        self._module, self._fuser = module, fuser
        # The module itself is the compiler's, to change.
        self._operators: Callable[..., Sequence[torch.Tensor]] = module.forward
        self._kinds: list[tuple[torch.dtype, torch.device]] = []
        self._compiled: Callable[..., Sequence[torch.Tensor]] | None = None
        self._transposed: list[int] = []

    def __call__(self, *tensors: torch.Tensor) -> Sequence[torch.Tensor]:
        # Whoever watches operators has to see them.
        if self._fuser.is_off or _get_current_dispatch_mode() or _get_current_function_mode():
            return self._operators(*tensors)
        try:
            if self._compiled is None:
                return self._compile(tensors)
            if list(map(_KIND, tensors)) == self._kinds:
                return self._compiled(*self._in_order(tensors))  # it looks at shapes and strides itself
        except Exception as error:  # no compiler, a release that lacks an option, other shapes
            self._fuser.turn_off(f"{type(error).__name__}: {error}".splitlines()[0])
        return self._operators(*tensors)

    def _compile(self, tensors: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """Compile for tensors like these, and give what the operators make of them."""
        # For the sake of one such tensor, all would be read in tiles, which took twice as long on a CPU.
        self._transposed = [n for n, one in enumerate(tensors) if one.ndim and one.stride(-1) > 1]
        ordered = self._in_order(tensors)
        compiled = self._fuser.backend(self._module, ordered)
        results, expected = compiled(*ordered), self._operators(*tensors)
        if all(map(_are_same_bits, results, expected)):
            self._compiled, self._kinds = compiled, list(map(_KIND, tensors))
        else:
            self._fuser.turn_off("compiled kernels do not give the same bits as operators on this device")
        return expected

    def _in_order(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        ordered = list(tensors)
        for place in self._transposed:
            ordered[place] = ordered[place].contiguous()
        return ordered


def _parts(code: Sequence[Instruction]) -> list[list[Instruction]]:
    """Code in another order: in turns what cannot be compiled, and what can, each as early as possible."""
    turns: dict[int, int] = {}
    parts: dict[int, list[Instruction]] = {}
    for instruction in code:
        turn = max((turns[place] for place in instruction.args if place in turns), default=0)
        turn += turn % 2 != _can_be_compiled(instruction)
        turns[instruction.out] = turn
        parts.setdefault(turn, []).append(instruction)
    return [parts[turn] for turn in sorted(parts)]


def _without_last_views(code: Sequence[Instruction]) -> tuple[list[Instruction], list[Instruction]]:
    """Set apart views that nothing in the code reads: a compiled function that returns them takes detours."""
    inside: list[Instruction] = []
    after: list[Instruction] = []
    read: set[int] = set()
    for instruction in reversed(code):
        if _rounds_once(instruction) or instruction.out in read:
            inside.append(instruction)
            read.update(instruction.args)
        else:
            after.append(instruction)
    return inside[::-1], after[::-1]


def _can_be_compiled(instruction: Instruction) -> bool:
    if instruction.op is operator.getitem:
        return False
    return _rounds_once(instruction) or (is_view(instruction.op) and not _is_list(instruction.op))


def _rounds_once(instruction: Instruction) -> bool:
    op = instruction.op
    return op.func is _aten._to_copy.default if isinstance(op, partial) else op in _ROUND_ONCE


def _is_list(op: Any) -> bool:
    """Whether an operator returns several tensors."""
    func: Any = op.func if isinstance(op, partial) else op
    return [str(returned.type) for returned in func._schema.returns] != ["Tensor"]


def _is_literal(place: int, values: Mapping[int, Any]) -> bool:
    return place in values and not isinstance(values[place], torch.Tensor)


def _as_module(
    code: Sequence[Instruction], inputs: Sequence[int], outputs: Sequence[int], values: Mapping[int, Any]
) -> fx.GraphModule:
    """Code as a function of tensors."""
    graph = fx.Graph()
    nodes: dict[int, Any] = {place: graph.placeholder(f"given{number}") for number, place in enumerate(inputs)}
    for op, args, out, *_ in code:
        func, kwargs = (op.func, op.keywords) if isinstance(op, partial) else (op, {})
        nodes[out] = graph.call_function(func, tuple(nodes.get(p, values.get(p)) for p in args), kwargs)
    graph.output(tuple(nodes[place] for place in outputs))
    return fx.GraphModule(nn.Module(), graph)


def _are_same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    return torch.equal(one.flatten().view(torch.uint8), other.flatten().view(torch.uint8))
