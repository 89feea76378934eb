"""Runs a denoiser's forward once as it is, and writes down the operators that it runs."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode, _get_current_function_mode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode
from torch.utils.weak import WeakTensorKeyDictionary

from ecad.runtime.inputs import Inputs
from ecad.runtime.kept_outputs import tensors_in
from ecad.runtime.passes import Forward
from ecad.runtime.replay.facts import Facts
from ecad.runtime.replay.graph import Call, Graph, Instruction, as_list
from ecad.runtime.replay.operators import is_random, is_view, with_names, written
from ecad.runtime.replay.rewrites import batch_tables, drop_leading_ones, drop_ones, merge_views

# Numbers leave a tensor unseen here; whatever depends on them cannot be replayed.
_LEAKS = (torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.__array__)


def record(
    run: Callable[..., Any],
    components: Sequence[nn.Module],
    inputs: Inputs,
    forward: Forward,
    facts: Facts | None,
) -> tuple[Any, Graph | None]:
    """Run a forward, watch what becomes of its components' outputs, and write it down.

    Args:
        run: the denoiser's forward.
        components: modules by site; a component counts as one operator.
        inputs: the forward's arguments.
        forward: of its pass; is told of outputs that are changed in place.
        facts: that the denoiser's tensors are among; None to watch only.

    Returns:
        What the forward returned, and its graph; None where a replay could differ from running it: it looks at values
        of tensors, draws random numbers, changes what it did not make itself, or calls a component twice.
    """
    recorder = Recorder(inputs.tensors, components, forward, facts)
    forward.recorder = recorder
    try:
        with recorder:
            returned = run(*inputs.args, **inputs.kwargs)
    finally:
        forward.recorder = None
    return returned, recorder.graph(returned)


class Recorder(TorchDispatchMode):
    """Notes every operator, each distinct one once.

    Args:
        inputs: tensors that go into the forward.
        components, forward, facts: as for `record`.

    Attributes:
        faithful: whether the notes are all there is to the forward.
        paused: whether a component runs.
    """

    # They are passed on, but cannot be noted.
    supports_higher_order_operators = True

    def __init__(
        self, inputs: Sequence[torch.Tensor], components: Sequence[nn.Module], forward: Forward, facts: Facts | None
    ) -> None:
        super().__init__()
        self.faithful, self.paused = facts is not None, False
        self._components, self._running = components, forward
        self._leaks = _LeakWatch(self)
        self._instructions: list[Instruction] = []
        self._inputs = self._size = len(inputs)
        # Weak, so that recording needs no more memory than running.
        self._tensors: MutableMapping[torch.Tensor, int] = WeakTensorKeyDictionary()
        self._shapes: dict[int, torch.Size] = {}
        self._dtypes: dict[int, torch.dtype] = {}
        for place, tensor in enumerate(inputs):
            self._track(tensor, place)
        held = [] if facts is None else facts.tensors()
        self._held = {id(tensor): index for index, tensor in enumerate(held)}
        self._sources: dict[int, int] = {}
        self._constants: dict[int, Any] = {}
        self._literals: dict[Any, int] = {}
        self._known: dict[Any, int] = {}
        self._fixed: set[int] = set()
        # Memory by place, memory that was changed in place, and memory that stands for results made twice.
        self._memory: dict[int, set[int]] = {}
        self._changed: set[int] = set()
        self._shared: set[int] = set()
        # Of all memory met, so that none of their numbers is given out again while they count.
        self._references: dict[int, StorageWeakRef] = {}
        # Memory of what components returned -> the site and which of its calls.
        self._outputs: dict[int, tuple[int, int]] = {}

    def __enter__(self) -> Recorder:
        super().__enter__()
        self._leaks.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._leaks.__exit__(*error)
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        schema = getattr(func, "_schema", None)
        if schema is not None and schema.is_mutable:
            self._spare_outputs(written(func, args, kwargs or {}))
        result = func(*args, **(kwargs or {}))
        if not self.paused and self.faithful:
            if schema is None:
                self.faithful = False
            else:
                self._note(func, args, kwargs or {}, result)
        return result

    def component(self, site: int, number: int, compute: Callable[[], Any], args: Any, kwargs: Any) -> Any:
        """Call a component and note it as one operator.

        Args:
            site: its place among the sites.
            number: calls of it before this one.
            compute: its forward, with these arguments.
            args, kwargs: that it is called with.

        Returns:
            What it returns.
        """
        with self._sparing(tensors_in([args, kwargs])), self._not_watching():
            result = compute()
        self._outputs |= dict.fromkeys(self._memory_of(result), (site, number))
        if self.faithful:
            self.faithful = number == 0
            leaves, structure = pytree.tree_flatten((args, kwargs))
            tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
            call = Call(self._components[site], leaves, structure)
            place = self._add(call, [self._place(tensor) for tensor in tensors], site)
            self._unpack(place, pytree.tree_leaves(result))
        return result

    @contextmanager
    def _not_watching(self) -> Iterator[None]:
        """Within the `with` no mode is in force: what compiles itself in a component (flex attention) refuses them."""
        on_top = _get_current_dispatch_mode() is self and _get_current_function_mode() is self._leaks
        self.paused = True
        if on_top:
            self.__exit__(None, None, None)
        try:
            yield
        finally:
            if on_top:
                self.__enter__()
            self.paused = False

    @contextmanager
    def _sparing(self, given: Iterable[torch.Tensor]) -> Iterator[None]:
        """Within the `with`, a component may change in place what another one has returned."""
        known = self._outputs
        exposed = [(one, known[memory]) for one in given for memory in self._memory_of(one) & known.keys()]
        before = [(one, one.clone(), whose, self._running.backup(*whose)) for one, whose in exposed]
        yield
        for one, copy, whose, backup in before:
            if not one.is_meta and not torch.equal(one, copy):
                self._running.own(*whose, backup)
                self.faithful = False

    def graph(self, returned: Any) -> Graph | None:
        """All that was noted, ending in what the forward returned."""
        outputs, structure = pytree.tree_flatten(returned)
        self.faithful &= all(isinstance(output, torch.Tensor) and output in self._tensors for output in outputs)
        if not self.faithful:
            return None
        places = [self._place(output) for output in outputs]
        code, views = self._folded()
        graph = Graph(
            code,
            self._sources,
            self._constants,
            views,
            self._shapes,
            self._dtypes,
            places,
            structure,
            self._inputs,
            self._size,
            not self._changed,
        )
        merge_views(graph)
        if graph.is_pure:
            drop_ones(graph)
            drop_leading_ones(graph)
            batch_tables(graph)
        return graph

    def _spare_outputs(self, written: Sequence[Any]) -> None:
        """What a component returned is about to be changed in place, and what is kept of it must not be."""
        for memory in self._memory_of(written) & self._outputs.keys():
            site, number = self._outputs.pop(memory)
            self._running.own(site, number)
            self.faithful = False

    def _note(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> None:
        if is_random(func, args, kwargs):
            self.faithful = False
            return
        named = {name: value for name, value in kwargs.items() if isinstance(value, torch.Tensor)}
        places = [self._place(arg) for arg in (*args, *named.values())]
        op = partial(func, **kwargs) if kwargs else func
        if named:
            literals = {name: value for name, value in kwargs.items() if name not in named}
            op = partial(with_names, partial(func, **literals), tuple(named))
            kwargs = literals
        if func._schema.is_mutable:
            self._change(written(func, args, kwargs))
            place = self._add(op, places, always=True)
        else:
            key = (func, repr(kwargs), *named, *places)
            if key in self._known and not is_view(op):
                self._shared |= self._memory_of(result) | self._memory[self._known[key]]
            place = self._known.setdefault(key, self._size)
            if place == self._size:
                self._add(op, places)
        self._memory[place] = self._memory_of(result)
        if isinstance(result, torch.Tensor):
            self._track(result, place)
        elif isinstance(result, (list, tuple)):
            self._unpack(place, result)
        else:
            self.faithful = False

    def _change(self, tensors: Sequence[Any]) -> None:
        """Note a change in place. What was computed so far is not the same as what will be."""
        memory = self._memory_of(tensors)
        constant = self._memory_of([value for value in self._constants.values() if isinstance(value, torch.Tensor)])
        if memory & (constant | self._shared | self._held_memory()):
            self.faithful = False
        self._changed |= memory
        self._known.clear()

    def _held_memory(self) -> set[int]:
        return set().union(*(self._memory[place] for place in self._sources))

    def _folded(self) -> tuple[list[Instruction], list[Instruction]]:
        """Compute at once what is made of literals alone, and set views of weights apart, unless they are changed."""
        code, views = [], []
        looked_at = set(self._sources) | self._constants.keys()
        for instruction in self._instructions:
            op, args, out, site, always = instruction
            literal = self._fixed.issuperset(args)
            constant = literal or (is_view(op) and looked_at.issuperset(args))
            if not constant or site is not None or always or self._memory.get(out, set()) & self._changed:
                code.append(instruction)
                continue
            looked_at.add(out)
            if literal:
                self._constants[out] = op(*[self._constants[place] for place in args])
                self._fixed.add(out)
            else:
                views.append(instruction)
        return code, views

    def _unpack(self, place: int, results: Sequence[Any]) -> None:
        for index, part in enumerate(results):
            if isinstance(part, torch.Tensor):
                key = (operator.getitem, place, index)
                if key not in self._known:
                    self._known[key] = self._add(operator.getitem, [place, self._place(index)])
                    self._memory[self._known[key]] = self._memory_of(part)
                self._track(part, self._known[key])
            elif part is not None:
                self.faithful = False

    def _track(self, tensor: torch.Tensor, place: int) -> None:
        self._tensors[tensor], self._shapes[place], self._dtypes[place] = place, tensor.shape, tensor.dtype

    def _add(self, op: Callable[..., Any], args: Sequence[int], site: int | None = None, always: bool = False) -> int:
        out = self._new_place()
        self._instructions.append(Instruction(op, tuple(args), out, site, always))
        return out

    def _new_place(self) -> int:
        self._size += 1
        return self._size - 1

    def _memory_of(self, values: Any) -> set[int]:
        """A number for each storage among some values."""
        found = set()
        for tensor in tensors_in([values]):
            storage = tensor.untyped_storage()
            if storage._cdata not in self._references:
                self._references[storage._cdata] = StorageWeakRef(storage)
            found.add(storage._cdata)
        return found

    def _held_or_constant(self, tensor: torch.Tensor) -> int:
        if id(tensor) not in self._held:  # made of literals, or of nobody's
            return self._constant(tensor, fixed=False)
        place = self._new_place()
        self._sources[place], self._memory[place] = self._held[id(tensor)], self._memory_of(tensor)
        return place

    def _constant(self, value: Any, fixed: bool) -> int:
        place = self._new_place()
        self._constants[place] = value
        if fixed:
            self._fixed.add(place)
        return place

    def _place(self, value: Any) -> int:
        if isinstance(value, torch.Tensor):
            place = self._tensors.get(value)
            if place is None:
                place = self._held_or_constant(value)
                self._track(value, place)
            return place
        if isinstance(value, (list, tuple)) and any(isinstance(part, torch.Tensor) for part in value):
            return self._add(as_list, [self._place(part) for part in value])
        key = (type(value), repr(value))
        if key not in self._literals:
            self._literals[key] = self._constant(value, fixed=True)
        return self._literals[key]


class _LeakWatch(TorchFunctionMode):
    """Notices when numbers leave a tensor without an operator."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _LEAKS and not self._recorder.paused:
            self._recorder.faithful = False
        return func(*args, **(kwargs or {}))
