"""What one row of a plan leaves of a recorded forward.

Around a reused component much is computed that nobody reads: its norm, its shift and scale, the activation before a
reused projection, in a row that reuses everything the whole text stream. A program is the same operators on the same
numbers without those, so images stay the same bit for bit. It is written out as one Python function: on small models
and on GPUs a reused row takes as long as Python needs to call its operators.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from torch.utils import _pytree as pytree

from ecad.runtime.passes import Forward
from ecad.runtime.replay.fused import Fuser
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
        fuser: compiles the sums of a row that computes no component; None to run them as operators.

    Attributes:
        reads: sites whose kept output has to be there.
    """

    def __init__(
        self, graph: Graph, actions: Sequence[Action], constants: Mapping[int, Any], fuser: Fuser | None = None
    ) -> None:
        called = [instruction.site for instruction in graph.instructions if instruction.site is not None]
        self.reads = [site for site in called if actions[site] in _READS]
        values = dict(constants)
        code = _live([_acting(instruction, actions) for instruction in graph.instructions], graph.outputs)
        outputs = graph.outputs
        if graph.is_pure:  # a part taken early would not see what changes later
            code, outputs = narrow(graph, code, values)
        code, self._parts = split_linears(graph, _live(code, outputs), values)
        code, self._kept = _apart(_live(code, outputs), values)
        if fuser is not None and graph.is_pure and not any(actions[site] in _COMPUTES for site in called):
            code = fuser.fuse(graph, code, outputs, values)
        kept = [place for _, _, place in self._kept]
        made = [instruction.out for instruction in (*code, *self._parts)]
        size = 1 + max([*values, *made, *kept, graph.inputs])
        steps, self._outputs = _parts_at_once(code, outputs, values, size)
        self._structure = graph.structure
        # What `narrow` and `split_linears` have added.
        self._literals = {place: value for place, value in values.items() if place not in constants}
        self._closure, self._bound_to = _written(steps, range(graph.inputs), kept, self._outputs)
        self._row: Callable[..., list[Any]] | None = None

    @property
    def is_bound(self) -> bool:
        """Whether it can run."""
        return self._row is not None

    def bind(self, constants: Mapping[int, Any]) -> None:
        """Take the values of constants, until `release`.

        Args:
            constants: of the graph, as `Graph.bind` gives them.
        """
        values = {**constants, **self._literals}
        for part in self._parts:
            values[part.out] = part.op(*[values[place] for place in part.args])
        self._row = self._closure(*[values[place] for place in self._bound_to])

    def release(self) -> None:
        """Let go of every tensor."""
        self._row = None

    def run(self, forward: Forward, kept: dict[int, Any], tensors: Sequence[torch.Tensor]) -> Any:
        """What the forward returns.

        Args:
            forward: that is running.
            kept: site -> output, of the sites that it reads; emptied, so that memory is free after its last read.
            tensors: those among the arguments, flattened.
        """
        assert self._row is not None
        given = []
        for site, index, _ in self._kept:
            output = kept[site]
            given.append(output if isinstance(output, torch.Tensor) else pytree.tree_leaves(output)[index])
        kept.clear()
        return pytree.tree_unflatten(self._row(forward, tensors, given), self._structure)


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


class _Step(NamedTuple):
    """`outs = op(*args)`; several of those follow one another."""

    op: Callable[..., Any]
    args: tuple[int, ...]
    outs: tuple[int, ...]


def _parts_at_once(
    code: Sequence[Instruction], outputs: Sequence[int], values: Mapping[int, Any], size: int
) -> tuple[list[_Step], list[int]]:
    """Take all that is read of a list of tensors in one step, into places from `size` on."""
    taken: dict[int, list[Instruction]] = {}
    for instruction in code:
        if instruction.op is operator.getitem:
            taken.setdefault(instruction.args[0], []).append(instruction)
    moved: dict[int, int] = {}
    steps = []
    for op, args, out, *_ in code:
        if op is operator.getitem and len(parts := taken[args[0]]) > 1:
            if out in moved:
                continue
            moved |= {part.out: size + n for n, part in enumerate(parts)}
            outs = tuple(range(size, size := size + len(parts)))
            indices = [values[part.args[1]] for part in parts]
            steps.append(_Step(itemgetter(*indices), (moved.get(args[0], args[0]),), outs))
        else:
            steps.append(_Step(op, tuple([moved.get(place, place) for place in args]), (out,)))
    return steps, [moved.get(place, place) for place in outputs]


def _written(
    steps: Sequence[_Step], inputs: Sequence[int], kept: Sequence[int], outputs: Sequence[int]
) -> tuple[Callable[..., Callable[..., list[Any]]], list[int]]:
    """Write a row out as one Python function, which runs faster than a loop over its steps.

    Args:
        steps: of the row.
        inputs, kept, outputs: places of its arguments and results.

    Returns:
        What gives the function of (forward, inputs, kept), bound to the values of constants, and the constants' places.
    """
    made = {*inputs, *kept, _FORWARD, *(place for _, _, outs in steps for place in outs)}
    constants = sorted({*(place for _, args, _ in steps for place in args), *outputs} - made)
    names = {place: f"v{place}" for place in (*constants, *inputs, *kept)} | {_FORWARD: "forward"}
    ops = {op: f"op{number}" for number, op in enumerate(dict.fromkeys(op for op, _, _ in steps))}
    lines = [f"[{_joined(names, inputs)}] = inputs", f"[{_joined(names, kept)}] = kept", "kept.clear()"]
    for (op, args, outs), dead in zip(steps, _last_reads(steps, outputs), strict=True):
        given = _joined(names, args)
        # A result takes the name of what nobody reads any more, so that this is free.
        free = [names[place] for place in dead if place in made and place in names]
        for place in outs:
            names[place] = free.pop() if free else f"v{place}"
        unread = [names[place] for place in outs if place in dead]
        lines.append(f"{_joined(names, outs)} = {ops[op]}({given})")
        if free or unread:
            lines.append(f"del {', '.join((*free, *unread))}")
    lines.append(f"return [{_joined(names, outputs)}]")
    head = f"def bind({', '.join([*ops.values(), *(f'v{place}' for place in constants)])}):"
    body = "\n        ".join(["    def row(forward, inputs, kept):", *lines])
    namespace: dict[str, Any] = {}
    exec(f"{head}\n{body}\n    return row", namespace)
    return partial(namespace["bind"], *(getattr(op, "_op", op) for op in ops)), constants


def _last_reads(code: Sequence[_Step], outputs: Sequence[int]) -> list[tuple[int, ...]]:
    """Places that nobody reads after each step."""
    read, dead = set(outputs), []
    for _, args, outs in reversed(code):
        dead.append(tuple({*args, *outs} - read))
        read.update(args)
    return dead[::-1]


def _joined(names: Mapping[int, str], places: Iterable[int]) -> str:
    return ", ".join([names[place] for place in places])
