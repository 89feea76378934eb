"""Assigns every forward of a denoiser to a row and a pass, after one bare generation.

This does not use ecad's runtime, which must do the same while the generation runs. A row is given by the scheduler's
index after its `step`, or by the position of the timestep in its table. A pass is named by diffusers'
`cache_context`; without a name, forwards with the same conditioning belong to one pass.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import nn
from torch.utils import _pytree as pytree


@dataclass
class Forward:
    """One call of a denoiser.

    Attributes:
        denoiser: its name in the pipeline.
        generation: number of times that timesteps were set before.
        row: row of the scheduler; None if no step followed.
        key: its pass, whose outputs later rows of the generation may reuse.
        shapes: shapes of its tensors.
        leaves: a digest of each of its arguments.
        context: name given by the pipeline.
    """

    denoiser: str
    generation: int
    row: int | None = None
    key: Any = None
    shapes: tuple[Any, ...] = ()
    leaves: tuple[str, ...] = ()
    context: str | None = None


@dataclass
class Recording:
    """A bare generation.

    Attributes:
        forwards: all calls of denoisers, in order.
        rows: number of timesteps, for each time that they were set before a forward.
        output: the pipeline's output.
    """

    forwards: list[Forward] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    output: Any = None

    def passes(self) -> int:
        """The maximum number of forwards of one denoiser in a row."""
        counts = Counter((f.denoiser, f.generation, f.row) for f in self.forwards if f.row is not None)
        return max(counts.values(), default=0)

    def describe(self) -> dict[str, Any]:
        """Counts, for a result line."""
        found = [forward.row for forward in self.forwards if forward.row is not None]
        return {
            "forwards": len(self.forwards),
            "timesteps": self.rows,
            "rows": [min(found), max(found)] if found else [],
            "passes": self.passes(),
            "named": sum(forward.context is not None for forward in self.forwards),
        }


def record(run: Callable[[], Any], denoisers: Mapping[str, nn.Module]) -> Recording:
    """Run a bare pipeline and identify its forwards.

    Args:
        run: calls the pipeline once.
        denoisers: name -> module.
    """
    recording = Recording()
    pending: list[Forward] = []
    context: list[str] = []
    counts: Counter[int] = Counter()

    def on_timesteps(scheduler: Any) -> None:
        if not recording.rows or any(f.generation == len(recording.rows) for f in recording.forwards):
            recording.rows.append(0)
        if scheduler is not None and getattr(scheduler, "timesteps", None) is not None:
            recording.rows[-1] = len(scheduler.timesteps)
        counts.clear()

    def on_step(scheduler: Any, timestep: Any) -> None:
        row = _row(scheduler, timestep, counts[id(scheduler)])
        counts[id(scheduler)] += 1
        for forward in pending:
            forward.row = row
        pending.clear()

    def before(name: str, args: Any, kwargs: Any) -> None:
        leaves = pytree.tree_leaves((args, kwargs))
        forward = Forward(name, len(recording.rows), context=context[-1] if context else None)
        forward.shapes = tuple(tuple(leaf.shape) for leaf in leaves if isinstance(leaf, torch.Tensor))
        forward.leaves = tuple(digest(leaf) for leaf in leaves)
        recording.forwards.append(forward)
        pending.append(forward)

    with ExitStack() as stack:
        stack.enter_context(watched_schedulers(on_timesteps, on_step))
        for name, module in denoisers.items():
            hook = module.register_forward_pre_hook(lambda _, a, k, n=name: before(n, a, k), with_kwargs=True)
            stack.callback(hook.remove)
            stack.enter_context(_named_contexts(type(module), context))
        recording.output = run()
    _name_passes(recording.forwards)
    return recording


def digest(value: Any) -> str:
    """A digest of a value."""
    if isinstance(value, torch.Tensor):
        raw = value.detach().cpu()
        raw = raw.float() if raw.is_floating_point() and raw.dtype.itemsize < 4 else raw  # numpy has no bfloat16
        return hashlib.sha256(raw.numpy().tobytes() + repr((value.shape, value.dtype)).encode()).hexdigest()[:16]
    return repr(value)[:80]


@contextmanager
def watched_schedulers(on_timesteps: Callable[[Any], None], on_step: Callable[[Any, Any], None]) -> Iterator[None]:
    """Watch all schedulers, including copies, through their classes."""
    undo: list[Callable[[], None]] = []
    for cls in _subclasses(SchedulerMixin):
        for name in ("set_timesteps", "step"):
            if name in vars(cls):
                original = vars(cls)[name]
                undo.append(lambda cls=cls, name=name, original=original: setattr(cls, name, original))
                setattr(cls, name, _watching(name, original, on_timesteps, on_step))
    try:
        yield
    finally:
        for put_back in reversed(undo):
            put_back()


def _watching(name: str, original: Any, on_timesteps: Callable[..., None], on_step: Callable[..., None]) -> Any:
    @wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        if name == "set_timesteps":
            on_timesteps(self)
        else:
            on_step(self, kwargs["timestep"] if "timestep" in kwargs else args[1] if len(args) > 1 else None)
        return result

    return method


def _subclasses(cls: type) -> Iterator[type]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)


def _row(scheduler: Any, timestep: Any, count: int) -> int:
    """The row of the step that a scheduler has just done."""
    index = getattr(scheduler, "_step_index", None)
    if index is not None:
        return int(index) - 1
    table = getattr(scheduler, "timesteps", None)
    if table is not None and timestep is not None:
        value = timestep.flatten()[0].item() if isinstance(timestep, torch.Tensor) else timestep
        places = [place for place, entry in enumerate(table.flatten().tolist()) if entry == value]
        if len(places) > 1 and isinstance(timestep, torch.Tensor):  # of equal entries, the one that it is
            places = [place for place in places if table[place].data_ptr() == timestep.data_ptr()]
        if len(places) == 1:
            return places[0]
    return count


@contextmanager
def _named_contexts(cls: type, stack: list[str]) -> Iterator[None]:
    original = getattr(cls, "cache_context", None)
    if original is None:
        yield
        return

    @contextmanager
    def cache_context(self: Any, name: str, *args: Any, **kwargs: Any) -> Iterator[None]:
        stack.append(name)
        try:
            with original(self, name, *args, **kwargs):
                yield
        finally:
            stack.pop()

    had = "cache_context" in vars(cls)
    cls.cache_context = cache_context
    try:
        yield
    finally:
        if had:
            cls.cache_context = original
        else:
            del cls.cache_context


def _name_passes(forwards: list[Forward]) -> None:
    for name in {forward.denoiser for forward in forwards}:
        mine = [forward for forward in forwards if forward.denoiser == name and forward.row is not None]
        rows = defaultdict(list)
        for forward in mine:
            rows[forward.generation, forward.row].append(forward)
        places = _conditioning(mine, max(map(len, rows.values()), default=0))
        for row in rows.values():
            contexts = [forward.context for forward in row]
            seen: Counter[Any] = Counter()
            for forward in row:
                told: Any = (forward.context,)
                if forward.context is None or contexts.count(forward.context) > 1:
                    told += tuple(forward.leaves[place] for place in places if place < len(forward.leaves))
                forward.key = (name, forward.generation, told, seen[told])
                seen[told] += 1


def _conditioning(forwards: list[Forward], passes: int) -> list[int]:
    """Arguments with no more distinct values over the generation than a row has forwards."""
    places = range(max((len(forward.leaves) for forward in forwards), default=0))
    values = [{forward.leaves[place] for forward in forwards if place < len(forward.leaves)} for place in places]
    return [place for place in places if 1 < len(values[place]) <= passes]
