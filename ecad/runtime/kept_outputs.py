"""Cached outputs: where they are stored, how many bytes they take, and how they are extrapolated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch


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
