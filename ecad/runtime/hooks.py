"""Takes hold of single methods of single objects, and lets go of them again.

A method is overridden on the instance: the module tree, the parameters and the class stay as they are, and nothing
else in the process notices. Several tools may do this to one object (accelerate's offload, diffusers' own hooks), in
any order, so an override that is no longer on top steps aside instead of cutting off what was put above it.

No class here has __slots__: torch.compile loses what a block assigns to them, and does not see them change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ecad.runtime.plan import Action

# Globals are looked up faster than members of an enum.
_COMPUTE, _KEEP, _FREE, _SKIP = Action.COMPUTE, Action.KEEP, Action.FREE, Action.SKIP


class Override:
    """Stands in for `owner.name` until removed. A copy of the owner gets the original method instead.

    Arguments:
        owner: any object with its own `__dict__`.
        name: one of its methods.
    """

    removed: bool

    def __init__(self, owner: Any, name: str) -> None:
        self.owner, self.name, self.removed = owner, name, False
        self.previous = vars(owner).get(name)
        self.original: Callable[..., Any] = getattr(owner, name)
        self.__wrapped__ = self.original  # pipelines inspect the signatures of scheduler methods
        setattr(owner, name, self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.original(*args, **kwargs)

    def __reduce__(self) -> Any:
        return _itself, (self.original,)

    def remove(self) -> None:
        """Put back what was there before, or pass every call through if something else was put on top since."""
        self.removed = True
        if vars(self.owner).get(self.name) is not self:
            return
        if self.previous is None:
            delattr(self.owner, self.name)
        else:
            setattr(self.owner, self.name, self.previous)
        if isinstance(self.previous, Override) and self.previous.removed:
            self.previous.remove()


class After(Override):
    """Calls `then()` each time the method has returned."""

    def __init__(self, owner: Any, name: str, then: Callable[[], None]) -> None:
        super().__init__(owner, name)
        self.then = then

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        result = self.original(*args, **kwargs)
        if not self.removed:
            self.then()
        return result


@dataclass
class CacheStats:
    """What a cache has done since it was enabled, over all generations.

    Calls are counted when a denoiser forward has ended, as its plan had them; bytes as they are kept and freed.

    Fields:
        computed: calls of components that ran.
        reused: calls answered with a kept output.
        skipped: calls that were not needed because the only reader of their output was reused.
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


class Kept:
    """The kept output of one site in one pass, if there is one now."""

    def __init__(self, stats: CacheStats, storage: Storage | None = None) -> None:
        self.output: Any = None
        self.size = 0
        self.stats, self.storage = stats, storage
        self.example: torch.Tensor | None = None

    def get(self) -> Any:
        """The kept output, on the device and in the type in which it was computed."""
        example, output = self.example, self.output
        return output if example is None or output is None else _map(lambda tensor: tensor.to(example), output)

    def keep(self, output: Any) -> None:
        if self.storage is None:
            self.output = output
        else:
            self.output = self.storage.put(output)
            self.example = next(tensors_in([output])).new_empty(0)
        if not torch.compiler.is_compiling():  # counting must not become part of a graph
            self.size = size_of(self.output)
            self.stats.cached_bytes += self.size
            self.stats.peak_cached_bytes = max(self.stats.peak_cached_bytes, self.stats.cached_bytes)

    def free(self) -> None:
        self.output = None
        if not torch.compiler.is_compiling():
            self.stats.cached_bytes -= self.size
            self.size = 0


class ComponentHook(Override):
    """The forward of one component: computes, or returns what it returned before.

    It decides nothing. `action` and `kept` are set from outside before each forward of the denoiser, so that a
    compiled block is specialised on what it does and not on the step.
    """

    def __init__(self, module: nn.Module, kept: Kept) -> None:
        super().__init__(module, "forward")
        self.rest(kept)

    def rest(self, kept: Kept) -> None:
        """Compute every call, until told otherwise."""
        self.action, self.kept = _COMPUTE, kept

    def remove(self) -> None:
        self.action = _COMPUTE
        super().remove()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
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
            kept.free()
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


def _map(change: Callable[[torch.Tensor], torch.Tensor], output: Any) -> Any:
    return tuple(map(change, output)) if isinstance(output, (list, tuple)) else change(output)


def _itself(original: Any) -> Any:
    return original
