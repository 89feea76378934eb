"""Cached outputs: where they are stored, how many bytes they take, and how they are extrapolated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, NamedTuple

import torch
from torch.utils import _pytree as pytree

from ecad.runtime.side_stream import Arrival, Cuda, SideStream


@dataclass
class CacheStats:
    """What a cache has done since it was enabled, over all generations.

    Calls are counted when a denoiser forward has ended; bytes as they are kept and freed.

    Attributes:
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


class Tally:
    """Adds to statistics, from any thread.

    Args:
        stats: what is added to.
    """

    def __init__(self, stats: CacheStats) -> None:
        self.stats = stats
        self._lock = Lock()

    def called(self, computed: int, reused: int, skipped: int) -> None:
        """Count calls of components."""
        with self._lock:
            self.stats.computed += computed
            self.stats.reused += reused
            self.stats.skipped += skipped

    def kept(self, change: int) -> None:
        """Count bytes that are kept from now on, or no longer."""
        with self._lock:
            self.stats.cached_bytes += change
            self.stats.peak_cached_bytes = max(self.stats.peak_cached_bytes, self.stats.cached_bytes)


@dataclass(frozen=True)
class Storage:
    """Where outputs are kept, and as what.

    Attributes:
        device: another device than the one they were computed on, such as "cpu"; None for that one.
        dtype: another floating point type, such as torch.bfloat16; None for their own. Whole numbers, masks and complex
            numbers stay as they are.
    """

    device: str | torch.device | None = None
    dtype: torch.dtype | None = None
    _sides: dict[torch.device, SideStream] = field(default_factory=dict, init=False, repr=False, compare=False)

    def put(self, output: object) -> object:
        """An output as it is kept."""
        return pytree.tree_map_only(torch.Tensor, self._put, output)

    def bring(self, output: object, computed_as: object) -> Callable[[], Any]:
        """Begin to bring an output back.

        Args:
            output: what `put` gave.
            computed_as: tensors of the devices and types in which it was computed, in the same nesting.

        Returns:
            What waits for it and gives it.
        """
        leaves, structure = pytree.tree_flatten(output)
        like = pytree.tree_leaves(computed_as)
        coming: list[tuple[list[int], Arrival]] = []
        for device, side in self._sides.items():
            places = [n for n, leaf in enumerate(like) if isinstance(leaf, torch.Tensor) and leaf.device == device]
            coming.append((places, side.bring([leaves[place] for place in places])))

        def arrived() -> Any:
            for places, arrival in coming:
                for place, tensor in zip(places, arrival.get(), strict=True):
                    leaves[place] = tensor
            return pytree.tree_unflatten(list(map(_like, leaves, like)), structure)

        return arrived

    def settle(self) -> None:
        """Wait until every output is where it is kept."""
        for side in self._sides.values():
            side.settle()

    def _put(self, tensor: torch.Tensor) -> torch.Tensor:
        dtype = (self.dtype if tensor.is_floating_point() else None) or tensor.dtype
        device = torch.device(self.device or tensor.device)
        if not Cuda.moves(tensor, device):
            return tensor.to(device, dtype)
        if tensor.device not in self._sides:
            self._sides[tensor.device] = SideStream(tensor.device)
        # The model may change its own tensor in place before that has been moved.
        return self._sides[tensor.device].send(tensor.to(dtype, copy=True))


class Line(NamedTuple):
    """What becomes of an output that a component has just computed.

    Attributes:
        gap: a reuse gives the point one step further on the line through it and the output N steps before; 0 for
            the output itself.
        remembered: whether the next line needs it.
        reused: whether anything reuses it at all.
    """

    gap: int = 0
    remembered: bool = False
    reused: bool = True


AS_IT_IS = Line()


class Kept:
    """The kept output of one call of one site in one pass, if there is one now.

    Args:
        tally: where its bytes are counted.
        storage: how it is kept, if not as it is.

    Attributes:
        is_shared: whether the model may change in place what it is given, so that it must be given copies.
    """

    def __init__(self, tally: Tally, storage: Storage | None = None, is_shared: bool = False) -> None:
        self.is_shared = is_shared
        self.size = 0
        self._tally, self._storage = tally, storage
        self._output: Any = None
        self._before: Any = None
        self._versions: list[tuple[torch.Tensor, int]] = []
        self._computed_as: object = None
        # Gives the output once it is back on the device, if it is on its way.
        self._coming: Callable[[], Any] | None = None

    @property
    def is_there(self) -> bool:
        """Whether there is something to reuse.

        An output that was changed in place since it was kept is no longer what the component returned, so it is gone.
        """
        for tensor, version in self._versions:
            if tensor._version != version:
                return False
        return self._output is not None

    def get(self) -> Any:
        """What a reuse gives, on the device and in the type in which it was computed; None if nothing is kept."""
        output = self._output
        for tensor, version in self._versions:
            if tensor._version != version:
                return None
        if self._computed_as is not None:
            coming, self._coming = self._coming, None
            output = coming() if coming is not None else self._restored(output)
        return _copied(output) if self.is_shared else output

    def fetch(self) -> None:
        """Begin to bring the output back to the device on which it was computed."""
        if self._storage is not None and self._coming is None and self._output is not None:
            self._coming = self._storage.bring(self._output, self._computed_as)

    def keep(self, output: object, line: Line = AS_IT_IS) -> None:
        """Keep an output in place of the one before.

        Args:
            output: as the component returned it: tensors in any nesting, and other values.
            line: what is to become of it.
        """
        before, self._coming = self._restored(self._before), None
        if self._storage is not None:
            self._computed_as = pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.new_empty(0), output)
        came = _copied(output) if self.is_shared else output
        stored = came if self._storage is None else self._storage.put(came)
        self._before = stored if line.remembered else None
        self._output = stored if line.reused else None
        if line.gap and before is not None:
            ahead = pytree.tree_map(lambda last, earlier: _one_step_ahead(last, earlier, line.gap), came, before)
            self._output = ahead if self._storage is None else self._storage.put(ahead)
        self._versions = _versions(self._output)
        self._count()

    def own(self, backup: Any = None) -> None:
        """Keep a copy from now on, and give copies: the model changes in place what was returned.

        Args:
            backup: what `backup` gave before it did; None if it is about to.
        """
        if not self.is_shared:
            self.is_shared = True
            self._output, self._before = backup or self.backup()
            self._coming = None
            self._versions = _versions(self._output)
            self._count()

    def backup(self) -> Any:
        """A copy of all that is kept."""
        if self._storage is not None:
            self._storage.settle()
        return _copied(self._output), _copied(self._before)

    def release(self) -> None:
        """No reuse is to come before the next output."""
        self._output, self._versions, self._coming = None, [], None
        self._count()

    def free(self) -> None:
        """Forget everything."""
        self._before = self._computed_as = None
        self.release()

    def _restored(self, output: object) -> object:
        if self._storage is None or self._computed_as is None or output is None:
            return output
        return self._storage.bring(output, self._computed_as)()

    def _count(self) -> None:
        size = size_of((self._output, self._before))
        if size != self.size:
            self._tally.kept(size - self.size)
            self.size = size


def size_if_kept(output: Any, storage: Storage | None) -> int:
    """Bytes that an output takes when it is kept, without keeping it."""
    if storage is None or storage.dtype is None:
        return size_of(output)
    return sum(
        tensor.numel() * (storage.dtype.itemsize if tensor.is_floating_point() else tensor.itemsize)
        for tensor in tensors_in([output])
    )


def tensors_in(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    """Every tensor among some values and what they hold."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors_in(value)
        elif isinstance(value, dict):
            yield from tensors_in(value.values())


def size_of(output: Any) -> int:
    """Bytes of memory that a component's output, a tensor or several of them, keeps alive."""
    storages = {storage._cdata: storage.nbytes() for storage in map(_storage, tensors_in([output]))}
    return sum(storages.values())


def is_number(value: Any) -> bool:
    """Whether a value can be extrapolated: a tensor of real or complex numbers, not of indices or a mask."""
    return isinstance(value, torch.Tensor) and (value.is_floating_point() or value.is_complex())


def _one_step_ahead(last: Any, before: Any, gap: int) -> Any:
    """Where a line goes that stood at `before` and `gap` steps later at `last`; what is no number stays."""
    if not is_number(last) or not is_number(before):
        return last
    return torch.add(last, last - before, alpha=1 / gap)


def _like(stored: Any, computed_as: Any) -> Any:
    return stored.to(computed_as) if isinstance(stored, torch.Tensor) else stored


def _copied(output: Any) -> Any:
    return pytree.tree_map_only(torch.Tensor, torch.clone, output)


def _versions(output: Any) -> list[tuple[torch.Tensor, int]]:
    """Every tensor, and how often it has been changed in place, where that is counted."""
    return [(tensor, tensor._version) for tensor in tensors_in([output]) if not tensor.is_inference()]


def _storage(tensor: torch.Tensor) -> torch.UntypedStorage:
    return tensor.untyped_storage()
