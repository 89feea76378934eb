"""Rewrites that do the same with fewer operators or on fewer numbers, and give the same bits.

When FLUX reuses everything, its text stream is dead although every single block joins it to the image stream, and of
the six modulations that a layer computes two are read. PixArt's blocks add tables of their own to one embedding.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import torch

from ecad.runtime.replay.graph import Graph, Instruction, as_list

_aten = torch.ops.aten
_SQUEEZES = {_aten.squeeze.default, _aten.squeeze.dim, _aten.squeeze.dims, _aten.unsqueeze.default}
_ELEMENTWISE = {_aten.add.Tensor, _aten.sub.Tensor, _aten.mul.Tensor, _aten.div.Tensor}


class _Part(NamedTuple):
    """A range of a tensor along one dimension."""

    dim: int
    start: int
    end: int


def narrow(graph: Graph, code: Sequence[Instruction], constants: dict[int, Any]) -> tuple[list[Instruction], list[int]]:
    """Where only a slice of a sum, product or concatenation is read, compute that slice of it.

    Args:
        graph: where the code comes from.
        code: live instructions, in order.
        constants: place -> value; those of new instructions are added.

    Returns:
        The new code, and the places of what the forward returns.
    """
    narrowing = _Narrowing(graph, code, constants)
    for instruction in reversed(code):
        narrowing.look(instruction)
    for instruction in code:
        narrowing.rewrite(instruction)
    return narrowing.code, [narrowing.moved.get(place, place) for place in graph.outputs]


class _Narrowing:
    """Backwards it looks at what is read of each result, forwards it rewrites."""

    def __init__(self, graph: Graph, code: Sequence[Instruction], constants: dict[int, Any]) -> None:
        self.shapes, self.constants = graph.shapes, constants
        self.made = {instruction.out: instruction for instruction in code}
        self.next_place = graph.size
        # None: all of it.
        self.read: dict[int, _Part | None] = dict.fromkeys(graph.outputs)
        self.moved: dict[int, int] = {}
        self.code: list[Instruction] = []

    def look(self, instruction: Instruction) -> None:
        if not instruction.always and instruction.out not in self.read:
            return  # only the rest of some result was made of it
        for place, part in self._reads(instruction):
            self.read[place] = part if self.read.get(place, part) == part else None

    def rewrite(self, instruction: Instruction) -> None:
        op, args, out = instruction[:3]
        if not instruction.always and out not in self.read:
            return
        part, reads = self.read.get(out), self._reads(instruction)
        if self._slice(instruction) is not None or (op is _aten.cat.default and reads[0][0] != args[0]):
            self.moved[out] = self._part_of(*reads[0])
        elif part is not None and op in _ELEMENTWISE:
            places = [self._part_of(*read) for read in reads]
            self.code.append(instruction._replace(args=tuple(places)))
        else:
            places = [self.moved.get(place, place) for place in args]
            self.code.append(instruction._replace(args=tuple(places)))
            if part is not None:
                self.read[out] = None
                self.moved[out] = self._part_of(out, part)
                self.read[out] = part

    def _reads(self, instruction: Instruction) -> list[tuple[int, _Part | None]]:
        """The places that an instruction reads, given what is read of its result, and what of each."""
        op, args, out = instruction[:3]
        part = self.read.get(out)
        if part is None:
            own = self._slice(instruction)
            if own is None:
                return [(place, None) for place in args]
            return [self._inside(self.made.get(args[0]), own) or (args[0], own)]
        if op in _ELEMENTWISE:
            return [(place, self._along(place, out, part)) for place in args]
        if (inside := self._inside(instruction, part)) is not None:
            return [inside]
        return [(place, None) for place in args]

    def _part_of(self, place: int, part: _Part | None) -> int:
        """Where that part of a result is, which may have been computed whole for somebody else."""
        if part is None or self.read.get(place) == part:
            return self.moved.get(place, place)
        out = self._new_place()
        source = self.moved.get(place, place) if self.read.get(place) is None else place
        self.code.append(Instruction(_aten.slice.Tensor, (source, *map(self._constant, part)), out))
        return out

    def _slice(self, instruction: Instruction) -> _Part | None:
        """The part that a slice takes of its argument, if the instruction is one and all of it is read."""
        if instruction.op is not _aten.slice.Tensor or len(instruction.args) > 4 or self.read.get(instruction.out):
            return None
        shape = self.shapes[instruction.args[0]]
        dim, start, end = [*(self.constants[place] for place in instruction.args[1:]), 0, None, None][:3]
        bounds = slice(start, end).indices(shape[dim])[:2]
        return _Part(dim % len(shape), *bounds)

    def _along(self, place: int, out: int, part: _Part) -> _Part | None:
        """The part of an argument of an elementwise operator; None if it does not run along the part's dimension."""
        shape, whole = self.shapes.get(place, torch.Size()), self.shapes[out]
        dim = part.dim - len(whole) + len(shape)
        return part._replace(dim=dim) if dim >= 0 and shape[dim] == whole[part.dim] > 1 else None

    def _inside(self, instruction: Instruction | None, part: _Part) -> tuple[int, _Part | None] | None:
        """Which of concatenated tensors holds the part, and where in it; None if no one of them, or nothing was."""
        if instruction is None or instruction.op is not _aten.cat.default:
            return None
        parts, *dims = instruction.args
        dim = self.constants[dims[0]] if dims else 0
        if dim % len(self.shapes[instruction.out]) != part.dim:
            return None
        start = 0
        for place in self.made[parts].args:
            length = self.shapes[place][part.dim]
            if start <= part.start and part.end <= start + length:
                inner = _Part(part.dim, part.start - start, part.end - start)
                return place, None if inner[1:] == (0, length) else inner
            start += length
        return None

    def _new_place(self) -> int:
        self.next_place += 1
        return self.next_place - 1

    def _constant(self, value: Any) -> int:
        place = self._new_place()
        self.constants[place] = value
        return place


def split_linears(
    graph: Graph, code: Sequence[Instruction], constants: dict[int, Any]
) -> tuple[list[Instruction], list[Instruction]]:
    """Where only some chunks of a linear layer's output are read, compute each of those alone.

    That gives the same bits where the matrix product does not choose another order of additions for fewer columns.
    Libraries do not promise it, so it is tried once for each layer, on numbers of its own.

    Args:
        graph, code, constants: as for `narrow`.

    Returns:
        The new code, and the code that takes the parts of weights that it reads.
    """
    made = {instruction.out: instruction for instruction in code}
    readers = _readers(code)
    next_place = 1 + max([graph.size, *constants, *made])
    rewritten, parts = [], []
    for instruction in code:
        split = made.get(instruction.args[0]) if instruction.op is operator.getitem else None
        linear = made.get(split.args[0]) if split is not None and split.op is _aten.split.Tensor else None
        if split is not None and linear is not None and _is_partly_read(graph, constants, linear, split, readers):
            size, index = constants[split.args[1]], constants[instruction.args[1]]
            bias, x, weight = linear.args
            columns = slice(index * size, (index + 1) * size)
            if _is_exact(graph, bias, x, weight, columns, constants):
                part = next_place
                constants[part], constants[part + 1] = columns, (slice(None), columns)
                parts.append(Instruction(operator.getitem, (bias, part), part + 2))
                parts.append(Instruction(operator.getitem, (weight, part + 1), part + 3))
                instruction = Instruction(linear.op, (part + 2, x, part + 3), instruction.out)
                next_place += 4
        rewritten.append(instruction)
    return rewritten, parts


def _is_partly_read(
    graph: Graph,
    constants: dict[int, Any],
    linear: Instruction,
    split: Instruction,
    readers: _Readers,
) -> bool:
    if linear.op is not _aten.addmm.default or len(linear.args) != 3 or len(readers[linear.out]) != 1:
        return False
    dim = constants[split.args[2]] if len(split.args) > 2 else 0
    chunks = graph.shapes[linear.out][1] / constants[split.args[1]]
    fixed = {linear.args[0], linear.args[2]} <= constants.keys()
    return fixed and dim in (1, -1) and len(readers[split.out]) < chunks


def _is_exact(graph: Graph, bias: int, x: int, weight: int, columns: slice, constants: dict[int, Any]) -> bool:
    key = (bias, x, weight, columns.start)
    if key not in graph.exact:
        matrix = constants[weight]
        generator = torch.Generator(matrix.device).manual_seed(0)  # the user's own random numbers stay as they are
        numbers = torch.randn(graph.shapes[x], generator=generator, dtype=matrix.dtype, device=matrix.device)
        whole = torch.addmm(constants[bias], numbers, matrix)[:, columns]
        part = torch.addmm(constants[bias][columns], numbers, matrix[:, columns])
        graph.exact[key] = torch.equal(whole, part)
    return graph.exact[key]


def drop_ones(graph: Graph) -> None:
    """Leave out products with the number 1, such as a scale that is not used.

    Args:
        graph: changed in place; no tensor in it is.
    """
    same: dict[int, int] = {}
    code = []
    for instruction in graph.instructions:
        args = tuple(same.get(place, place) for place in instruction.args)
        by = graph.constants.get(args[1]) if instruction.op is _aten.mul.Tensor and len(args) == 2 else None
        if type(by) in (int, float) and by == 1 and _is_alike(graph, args[0], instruction.out):
            same[instruction.out] = args[0]
        else:
            code.append(instruction._replace(args=args))
    graph.instructions, graph.outputs = code, [same.get(place, place) for place in graph.outputs]


def _is_alike(graph: Graph, one: int, other: int) -> bool:
    return (graph.shapes.get(one), graph.dtypes.get(one)) == (graph.shapes.get(other), graph.dtypes.get(other))


def drop_leading_ones(graph: Graph) -> None:
    """Do not put a 1 in front of a shape where broadcasting does, such as that of a gate at batch 1.

    Args:
        graph: changed in place.
    """
    readers, shapes = _readers(graph.instructions), graph.shapes
    same: dict[int, int] = {}
    for place, instruction in enumerate(graph.instructions):
        op, args, out = instruction[:3]
        graph.instructions[place] = instruction._replace(args=tuple([same.get(one, one) for one in args]))
        if op is not _aten.unsqueeze.default or out in graph.outputs or shapes[out] != (1, *shapes[args[0]]):
            continue
        if shapes[args[0]] and all(_is_as_long_without(graph, reader, out) for reader in readers[out]):
            same[out] = graph.instructions[place].args[0]


def _is_as_long_without(graph: Graph, reader: Instruction, place: int) -> bool:
    """Whether another argument of an elementwise operator has as many dimensions as this one."""
    others = [len(graph.shapes.get(one, ())) for one in reader.args if one != place]
    return reader.op in _ELEMENTWISE and max(others, default=0) >= len(graph.shapes[place])


def merge_views(graph: Graph) -> None:
    """Look at what a squeezed tensor was before, where it is given another shape anyway.

    Args:
        graph: changed in place.
    """
    made = {instruction.out: instruction for instruction in graph.instructions}
    for place, instruction in enumerate(graph.instructions):
        below = made.get(instruction.args[0]) if instruction.op is _aten.view.default else None
        if below is not None and below.op in _SQUEEZES:
            graph.instructions[place] = instruction._replace(args=(below.args[0], *instruction.args[1:]))


def batch_tables(graph: Graph) -> None:
    """Add the tables of all blocks to the embedding that they share, and split the sums, in one operator each.

    Args:
        graph: changed in place.
    """
    readers = _readers(graph.instructions)
    fixed = graph.sources.keys() | {view.out for view in graph.views}
    groups: dict[object, list[tuple[int, Instruction, Instruction]]] = defaultdict(list)
    for instruction in graph.instructions:
        found = _table_and_embedding(graph, instruction, fixed)
        splits = readers[instruction.out]
        if found is not None and len(splits) == 1 and splits[0].op is _aten.split.Tensor:
            table, embedding = found
            key = (embedding, graph.shapes[table], graph.dtypes[table], splits[0].args[1:])
            groups[key].append((table, instruction, splits[0]))
    for (embedding, *_), members in groups.items():  # type: ignore[misc]
        if len(members) > 1:
            _batch(graph, embedding, members, readers)


def _table_and_embedding(graph: Graph, instruction: Instruction, fixed: Collection[int]) -> tuple[int, int] | None:
    if instruction.op is not _aten.add.Tensor or len(instruction.args) != 2:
        return None
    table, embedding = sorted(instruction.args, key=lambda place: place not in fixed)
    known = table in fixed and embedding not in fixed
    if not known or not {table, embedding} <= graph.shapes.keys():
        return None
    # A leading dimension of its own then sets the blocks apart, whatever is broadcast.
    return (table, embedding) if len(graph.shapes[embedding]) <= len(graph.shapes[table]) else None


def _batch(
    graph: Graph, embedding: int, members: Sequence[tuple[int, Instruction, Instruction]], readers: _Readers
) -> None:
    size, *dims = (graph.constants[place] for place in members[0][2].args[1:])
    dim = dims[0] if dims else 0
    parts = sorted({graph.constants[read.args[1]] for _, _, split in members for read in readers[split.out]})
    listed, tables, sums, chunks = (graph.new_place() for _ in range(4))
    new = [
        Instruction(as_list, tuple(table for table, _, _ in members), listed),
        Instruction(_aten.stack.default, (listed,), tables),
        Instruction(_aten.add.Tensor, (tables, embedding), sums),
        Instruction(_aten.split.Tensor, (sums, _constant(graph, size), _constant(graph, dim + (dim >= 0))), chunks),
    ]
    blocks: dict[int, int] = {}
    for part in parts:
        chunk, blocks[part] = graph.new_place(), graph.new_place()
        new.append(Instruction(operator.getitem, (chunks, _constant(graph, part)), chunk))
        new.append(Instruction(_aten.unbind.int, (chunk,), blocks[part]))
    moved = {}
    for index, (_, _, split) in enumerate(members):
        for read in readers[split.out]:
            args = blocks[graph.constants[read.args[1]]], _constant(graph, index)
            moved[read.out] = Instruction(operator.getitem, args, read.out)
    first = graph.instructions.index(members[0][1])
    code = graph.instructions[:first] + new + graph.instructions[first:]
    graph.instructions = [moved.get(instruction.out, instruction) for instruction in code]


_Readers = dict[int, list[Instruction]]


def _readers(code: Sequence[Instruction]) -> _Readers:
    """Who reads each place."""
    readers: _Readers = defaultdict(list)
    for instruction in code:
        for place in instruction.args:
            readers[place].append(instruction)
    return readers


def _constant(graph: Graph, value: Any) -> int:
    place = graph.new_place()
    graph.constants[place] = value
    return place
