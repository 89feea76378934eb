"""Runs a denoiser's forward once as it is, and writes down the operators that it runs."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from ecad.runtime.kept_outputs import tensors_in
from ecad.runtime.overrides import Override
from ecad.runtime.replay.graph import Call, Graph, Instruction, as_list
from ecad.runtime.replay.rewrites import batch_tables

# Numbers leave a tensor unseen here; whatever depends on them cannot be replayed.
_LEAKS = (torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.__array__)


def record(
    forward: Callable[..., Any], components: Mapping[int, nn.Module], leaves: Sequence[Any], structure: pytree.TreeSpec
) -> tuple[Any, Graph | None]:
    """Run a forward and write it down.

    Arguments:
        forward: of the denoiser.
        components: site -> module; a component counts as one operator.
        leaves, structure: the forward's (args, kwargs), flattened.

    Returns what the forward returned, and its graph; None where a replay could differ from running it: it looks at
    values of tensors, draws random numbers, changes what it did not make itself, or calls a component twice.
    """
    args, kwargs = pytree.tree_unflatten(list(leaves), structure)
    recorder = _Recorder([leaf for leaf in leaves if isinstance(leaf, torch.Tensor)])
    overrides = [_Recorded(module, site, recorder) for site, module in components.items()]
    try:
        with recorder, _LeakWatch(recorder):
            returned = forward(*args, **kwargs)
    finally:
        for override in overrides:
            override.remove()
    return returned, recorder.graph(returned)


class _Recorder(TorchDispatchMode):
    """Notes every operator, each distinct one once."""

    def __init__(self, inputs: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self.faithful, self.paused = True, False
        self._instructions: list[Instruction] = []
        self._size = len(inputs)
        # Weak, so that recording needs no more memory than running.
        self._tensors: MutableMapping[torch.Tensor, int] = WeakTensorKeyDictionary()
        self._shapes: dict[int, torch.Size] = {}
        for place, tensor in enumerate(inputs):
            self._track(tensor, place)
        self._constants: dict[int, Any] = {}
        self._literals: dict[Any, int] = {}
        self._known: dict[Any, int] = {}
        self._fixed: set[int] = set()
        # Memory by place, memory that was changed in place, and memory that stands for results made twice.
        self._memory: dict[int, set[int]] = {}
        self._changed: set[int] = set()
        self._shared: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self.paused and self.faithful:
            self._note(func, args, kwargs or {}, result)
        return result

    def component(self, call: Call, site: int, tensors: Sequence[torch.Tensor], result: Any) -> None:
        """Note the call of a component and its result."""
        if any(instruction.site == site for instruction in self._instructions):
            self.faithful = False
        place = self._add(call, [self._place(t) for t in tensors], site)
        self._unpack(place, pytree.tree_leaves(result))

    def graph(self, returned: Any) -> Graph | None:
        """All that was noted, ending in what the forward returned."""
        outputs, structure = pytree.tree_flatten(returned)
        self.faithful &= all(isinstance(output, torch.Tensor) and output in self._tensors for output in outputs)
        if not self.faithful:
            return None
        places = [self._place(output) for output in outputs]
        code = self._folded()
        graph = Graph(code, self._constants, self._shapes, places, structure, self._size, not self._changed)
        if graph.is_pure:
            batch_tables(graph)
        return graph

    def _note(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> None:
        if _is_random(func, args, kwargs):
            self.faithful = False
            return
        named = {name: value for name, value in kwargs.items() if isinstance(value, torch.Tensor)}
        places = [self._place(arg) for arg in (*args, *named.values())]
        op = partial(func, **kwargs) if kwargs else func
        if named:
            literals = {name: value for name, value in kwargs.items() if name not in named}
            op = partial(_with_names, partial(func, **literals), tuple(named))
            kwargs = literals
        if func._schema.is_mutable:
            self._change([arg for arg, a in zip(args, func._schema.arguments, strict=False) if _is_written(a)])
            place = self._add(op, places, always=True)
        else:
            key = (func, repr(kwargs), *named, *places)
            if key in self._known and not _is_view(op):
                self._shared |= _memory_of(result) | self._memory[self._known[key]]
            place = self._known.setdefault(key, self._size)
            if place == self._size:
                self._add(op, places)
        self._memory[place] = _memory_of(result)
        if isinstance(result, torch.Tensor):
            self._track(result, place)
        elif isinstance(result, (list, tuple)):
            self._unpack(place, result)
        else:
            self.faithful = False

    def _change(self, tensors: Sequence[Any]) -> None:
        """Note a change in place. What was computed so far is not the same as what will be."""
        memory = _memory_of(tensors)
        constant = _memory_of([value for value in self._constants.values() if isinstance(value, torch.Tensor)])
        if memory & (constant | self._shared):
            self.faithful = False
        self._changed |= memory
        self._known.clear()

    def _folded(self) -> list[Instruction]:
        """Compute at once what is made of literals alone, and views of parameters, unless that is changed in place."""
        code = []
        for instruction in self._instructions:
            op, args, out, site, always = instruction
            literal = self._fixed.issuperset(args)
            constant = literal or (_is_view(op) and self._constants.keys() >= set(args))
            if constant and site is None and not always and not self._memory.get(out, set()) & self._changed:
                self._constants[out] = op(*[self._constants[place] for place in args])
                self._fixed |= {out} if literal else set()
            else:
                code.append(instruction)
        return code

    def _unpack(self, place: int, results: Sequence[Any]) -> None:
        for index, part in enumerate(results):
            if isinstance(part, torch.Tensor):
                key = (operator.getitem, place, index)
                if key not in self._known:
                    self._known[key] = self._add(operator.getitem, [place, self._place(index)])
                    self._memory[self._known[key]] = _memory_of(part)
                self._track(part, self._known[key])
            elif part is not None:
                self.faithful = False

    def _track(self, tensor: torch.Tensor, place: int) -> None:
        self._tensors[tensor], self._shapes[place] = place, tensor.shape

    def _add(self, op: Callable[..., Any], args: Sequence[int], site: int | None = None, always: bool = False) -> int:
        out = self._new_place()
        self._instructions.append(Instruction(op, tuple(args), out, site, always))
        return out

    def _new_place(self) -> int:
        self._size += 1
        return self._size - 1

    def _constant(self, value: Any, fixed: bool) -> int:
        place = self._new_place()
        self._constants[place] = value
        if fixed:
            self._fixed.add(place)
        return place

    def _place(self, value: Any) -> int:
        if isinstance(value, torch.Tensor):
            if value not in self._tensors:  # a parameter, a buffer, or a tensor made of literals
                self._track(value, self._constant(value, fixed=False))
            return self._tensors[value]
        if isinstance(value, (list, tuple)) and any(isinstance(part, torch.Tensor) for part in value):
            return self._add(as_list, [self._place(part) for part in value])
        key = (type(value), repr(value))
        if key not in self._literals:
            self._literals[key] = self._constant(value, fixed=True)
        return self._literals[key]


class _Recorded(Override):
    """While a forward is recorded: lets a component run unseen, as one operator."""

    def __init__(self, module: nn.Module, site: int, recorder: _Recorder) -> None:
        super().__init__(module, "forward")
        self._site, self._recorder = site, recorder

    def run(self, *args: Any, **kwargs: Any) -> Any:
        recorder = self._recorder
        leaves, structure = pytree.tree_flatten((args, kwargs))
        recorder.paused = True
        try:
            result = self.original(*args, **kwargs)
        finally:
            recorder.paused = False
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        recorder.component(Call(self.owner, leaves, structure), self._site, tensors, result)
        return result


class _LeakWatch(TorchFunctionMode):
    """Notices when numbers leave a tensor without an operator."""

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _LEAKS and not self._recorder.paused:
            self._recorder.faithful = False
        return func(*args, **(kwargs or {}))


def _is_random(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    if torch.Tag.nondeterministic_seeded not in func.tags:
        return False
    names = [argument.name for argument in func._schema.arguments]
    given = dict(zip(names, args, strict=False)) | dict(kwargs)
    return "dropout_p" not in names or given.get("dropout_p", 0.0) != 0.0  # attention draws for its dropout only


def _with_names(func: Callable[..., Any], names: tuple[str, ...], *values: Any) -> Any:
    by_place = len(values) - len(names)
    return func(*values[:by_place], **dict(zip(names, values[by_place:], strict=True)))


def _is_view(op: Any) -> bool:
    if op is operator.getitem:
        return True
    schema = getattr(op.func if isinstance(op, partial) else op, "_schema", None)
    return schema is not None and any(returned.alias_info is not None for returned in schema.returns)


def _is_written(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def _memory_of(values: Any) -> set[int]:
    return {tensor.untyped_storage()._cdata for tensor in tensors_in([values])}
