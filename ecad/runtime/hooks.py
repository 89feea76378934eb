"""Takes hold of single methods of single objects, and lets go of them again.

A method is overridden on the instance: the module tree, the parameters and the class stay as they are, and nothing
else in the process notices. Several tools may do this to one object (accelerate's offload, diffusers' own hooks), in
any order, so an override that is no longer on top steps aside instead of cutting off what was put above it.

No class here has __slots__: torch.compile loses what a block assigns to them, and does not see them change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import torch
from torch import nn

from ecad.runtime.plan import Action

# Globals are looked up faster than members of an enum.
_COMPUTE, _KEEP, _FREE, _SKIP = Action.COMPUTE, Action.KEEP, Action.FREE, Action.SKIP
_REUSES = frozenset((Action.REUSE, Action.FREE))


class Override:
    """Stands in for `owner.name` until removed. A copy of the owner gets the original method instead.

    Arguments:
        owner: any object with its own `__dict__`.
        name: one of its methods.

    Attributes:
        original: the method as it was.
        method: what stands in for it: a partial that finds this object in its owner. Met in any other way,
            torch.compile would make a block anew for each override, and not only for each thing that one can do.
    """

    removed: bool

    def __init__(self, owner: Any, name: str) -> None:
        self.owner, self.name, self.removed = owner, name, False
        self.previous = vars(owner).get(name)
        self.original: Callable[..., Any] = getattr(owner, name)
        self._key = next(key for n in count() if (key := f"_ecad_{name}_{n}") not in vars(owner))
        vars(owner)[self._key] = self
        self.method = partial(_call, owner, self._key)
        self.method.__wrapped__ = self.original  # type: ignore[attr-defined]  # pipelines inspect signatures
        setattr(owner, name, self.method)

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """What the method does."""
        return self.original(*args, **kwargs)

    def __reduce__(self) -> Any:
        return _Copy, (self.original,)

    def remove(self) -> None:
        """Put back what was there before, or pass every call through if something else was put on top since."""
        self.removed = True
        if vars(self.owner).get(self.name) is not self.method:
            return
        del vars(self.owner)[self._key]
        if self.previous is None:
            delattr(self.owner, self.name)
        else:
            setattr(self.owner, self.name, self.previous)
        below = override_of(self.previous)
        if below is not None and below.removed:
            below.remove()


def override_of(method: Any) -> Override | None:
    """The override that a method of an object comes from, if it does."""
    found = getattr(*method.args) if isinstance(method, partial) and method.func is _call else None
    return found if isinstance(found, Override) else None


def _call(owner: Any, key: str, *args: Any, **kwargs: Any) -> Any:
    return getattr(owner, key).run(*args, **kwargs)


class _Copy:
    """What becomes of an override when its owner is copied."""

    def __init__(self, original: Callable[..., Any]) -> None:
        self.run = original


class After(Override):
    """Calls `then()` each time the method has returned."""

    def __init__(self, owner: Any, name: str, then: Callable[[], None]) -> None:
        super().__init__(owner, name)
        self.then = then

    def run(self, *args: Any, **kwargs: Any) -> Any:
        result = self.original(*args, **kwargs)
        if not self.removed:
            self.then()
        return result


class Around(Override):
    """Calls `around(method, args, kwargs)` instead of the method."""

    def __init__(self, owner: Any, name: str, around: Callable[[Callable[..., Any], Any, Any], Any]) -> None:
        super().__init__(owner, name)
        self.around = around

    def run(self, *args: Any, **kwargs: Any) -> Any:
        return self.original(*args, **kwargs) if self.removed else self.around(self.original, args, kwargs)


@dataclass
class CacheStats:
    """What a cache has done since it was enabled, over all generations.

    Calls are counted when a denoiser forward has ended, as its plan had them; bytes as they are kept and freed.

    Fields:
        computed: calls of components that ran.
        reused: calls answered with a kept output.
        skipped: calls that were not needed, because the only reader of their output was reused or the denoiser's own
            output was forecast.
        cached_bytes: bytes of kept outputs now.
        peak_cached_bytes: most bytes of kept outputs at any moment.
    """

    computed: int = 0
    reused: int = 0
    skipped: int = 0
    cached_bytes: int = 0
    peak_cached_bytes: int = 0


@dataclass(frozen=True)
class Storage:
    """Where outputs are kept, and as what.

    Fields:
        device: another device than the one they were computed on, such as "cpu"; None for that one.
        dtype: another floating point type, such as torch.bfloat16; None for their own.
    """

    device: str | torch.device | None = None
    dtype: torch.dtype | None = None

    def put(self, output: Any) -> Any:
        """An output as it is kept."""
        return _map(lambda tensor: tensor.to(self.device or tensor.device, self.dtype or tensor.dtype), output)


class Line(NamedTuple):
    """What becomes of an output that a component has just computed.

    Fields:
        gap: a reuse gives the point one step further on the line through it and the output so many steps before; 0 for
            the output itself.
        remembered: whether the next line needs it.
        reused: whether anything reuses it at all.
    """

    gap: int = 0
    remembered: bool = False
    reused: bool = True


class Kept:
    """The kept output of one site in one pass, if there is one now.

    Attributes:
        output: what a reuse gives; a compiled component puts here what it computed.
        line: what is to become of the next output that is computed.
    """

    def __init__(self, stats: CacheStats, storage: Storage | None = None) -> None:
        self.output: Any = None
        self.line = Line()
        self.size = 0
        self.stats, self.storage = stats, storage
        self.example: torch.Tensor | None = None
        self._settled: Any = None
        self._before: Any = None

    def get(self) -> Any:
        """What a reuse gives, on the device and in the type in which it was computed."""
        return self._restored(self.output)

    def keep(self, output: Any) -> None:
        self.output = output
        self.settle()

    def settle(self) -> None:
        """Store and count an output that has just been put here; nothing happens the second time."""
        if self.output is None or self.output is self._settled:
            return
        came, before, line = self.output, self._restored(self._before), self.line
        if self.storage is not None:
            self.example = next(tensors_in([came])).new_empty(0)
        stored = came if self.storage is None else self.storage.put(came)
        self._before = stored if line.remembered else None
        self.output = stored if line.reused else None
        if line.gap and before is not None:
            ahead = _map(partial(_one_step_ahead, line.gap), came, before)
            self.output = ahead if self.storage is None else self.storage.put(ahead)
        self._settled = self.output
        self._count()

    def release(self) -> None:
        """No reuse is to come before the next output."""
        self.output = self._settled = None
        self._count()

    def free(self) -> None:
        """Forget everything."""
        self._before = self.example = None
        self.release()

    def _restored(self, output: Any) -> Any:
        example = self.example
        return output if example is None or output is None else _map(lambda tensor: tensor.to(example), output)

    def _count(self) -> None:
        size = size_of((self.output, self._before))
        self.stats.cached_bytes += size - self.size
        self.size = size
        self.stats.peak_cached_bytes = max(self.stats.peak_cached_bytes, self.stats.cached_bytes)


def _one_step_ahead(gap: int, last: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """Where a line goes that stood at `before` and `gap` steps later at `last`."""
    return torch.add(last, last - before, alpha=1 / gap)


class ComponentHook(Override):
    """The forward of one component: computes, or returns what it returned before.

    It decides nothing. What to do is set from outside before each forward of the denoiser.
    """

    def __init__(self, module: nn.Module, kept: Kept) -> None:
        super().__init__(module, "forward")
        self.rest(kept)

    def rest(self, kept: Kept) -> None:
        """Compute every call, until told otherwise."""
        self.act(_COMPUTE, kept)

    def act(self, action: Action, kept: Kept) -> None:
        """Do this at the next call.

        Arguments:
            action: of the plan.
            kept: where the output is kept, or is to be.
        """
        self.action, self.kept = action, kept
        # A compiled block is made once for each combination of what it sees change, so it is shown two bools.
        self.skips, self.reuses = action is _SKIP, action in _REUSES

    def settle(self) -> None:
        """After a forward: a compiled one has left every output here, needed or not."""
        if self.action is _COMPUTE:
            self.kept.free()
        elif self.action is _FREE:
            self.kept.release()
        else:
            self.kept.settle()

    def remove(self) -> None:
        self.action, self.skips, self.reuses = _COMPUTE, False, False
        super().remove()

    def run(self, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return self._compiled(*args, **kwargs)
        action = self.action
        if action is _COMPUTE:
            return self.original(*args, **kwargs)
        if action is _SKIP:
            return empty_output(*args, **kwargs)
        kept = self.kept
        output = None if action is _KEEP else kept.get()
        if output is None:  # at the first visit of a block that this pass left out before
            output = self.original(*args, **kwargs)
            if action is not _FREE:
                kept.keep(output)
        elif action is _FREE:
            kept.release()
        return output

    def _compiled(self, *args: Any, **kwargs: Any) -> Any:
        if self.skips:
            return empty_output(*args, **kwargs)
        if self.reuses and (output := self.kept.get()) is not None:
            return output
        output = self.original(*args, **kwargs)
        self.kept.output = output
        return output


def empty_output(*args: Any, **kwargs: Any) -> Any:
    """Stand for the output of an attention or MLP that nobody reads: its batch, length, device and dtype, no width.

    Whatever is computed from it on the way to the reused reader (an activation, a concatenation) costs nothing.

    >>> empty_output(torch.ones(2, 5, 64)).shape
    torch.Size([2, 5, 0])
    """
    hidden = args[0] if args else kwargs["hidden_states"]
    text = kwargs.get("encoder_hidden_states")
    return hidden[..., :0] if text is None else (hidden[..., :0], text[..., :0])


def tensors_in(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    """Every tensor among some values and the lists and tuples among them."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors_in(value)


def size_of(output: Any) -> int:
    """Bytes of memory that a component's output, a tensor or a tuple of them, keeps alive."""
    storages = {storage._cdata: storage.nbytes() for storage in map(_storage, tensors_in([output]))}
    return sum(storages.values())


def _storage(tensor: torch.Tensor) -> torch.UntypedStorage:
    return tensor.untyped_storage()


def _map(change: Callable[..., torch.Tensor], *outputs: Any) -> Any:
    """Change the tensors among outputs of one structure; of anything else, the first stays."""
    if isinstance(outputs[0], (list, tuple)):
        return tuple(_map(change, *parts) for parts in zip(*outputs, strict=True))
    return change(*outputs) if isinstance(outputs[0], torch.Tensor) else outputs[0]
