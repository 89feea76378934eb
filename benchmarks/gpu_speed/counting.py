"""Counts the kernels, bytes and FLOPs of rows on the meta device, without a GPU."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes, _get_current_dispatch_mode
from torch.utils.flop_counter import flop_registry

from ecad.runtime.cache import cached
from ecad.runtime.replay import rewrites
from ecad.runtime.replay.fused import FusedSums
from ecad.schedules import CacheSchedule
from gpu_speed.models import Loop

# Operators that only allocate or make views.
_FREE = {"empty", "empty_like", "new_empty", "empty_strided", "_unsafe_view", "lift_fresh", "detach"}


class Kernel(NamedTuple):
    """One launch: the operator, the bytes that it reads and writes, and the FLOPs of a matrix product."""

    name: str
    moved: int
    flops: int = 0


class Counted(NamedTuple):
    """The kernels of each row, and the maximum of cached bytes."""

    rows: list[list[Kernel]]
    kept: int


def count_rows(loop: Loop, schedule: CacheSchedule | None, fuse_rows: bool = False) -> Counted:
    """The launches of each row's forwards.

    Args:
        loop: a model; on the meta device nothing is computed.
        schedule: the schedule, which also gives the number of rows; None for one row of the bare model.
        fuse_rows: whether sums of rows that compute nothing are compiled; a compiled function counts as one kernel.
    """
    timestep = torch.zeros((), device=loop.latents.device)
    inputs = [loop.inputs(name, loop.latents, timestep) for name in loop.model.passes]
    rows = []
    with (
        torch.no_grad(),
        _without_numbers(),
        nullcontext() if schedule is None else cached(loop.transformer, schedule, fuse_rows=fuse_rows) as run,
    ):
        for row in range(1 if schedule is None else schedule.num_steps):
            with nullcontext() if run is None else run.step(row), _Launches() as launches, _Fused(launches):
                for given in inputs:
                    loop.transformer(**given)
            rows.append(launches.kernels)
    return Counted(rows, 0 if run is None else run.stats.peak_cached_bytes)


@contextmanager
def plain_hooks(loop: Loop) -> Iterator[None]:
    """Run components through hooks and all other operators as they are, like a denoiser with other hooks.

    Args:
        loop: the loop with the denoiser.
    """
    *_, last = loop.transformer.children()
    foreign = last.register_forward_hook(lambda *_: None)
    try:
        yield
    finally:
        foreign.remove()


class _Launches(TorchDispatchMode):
    """Records every operator that launches a kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: list[Kernel] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        name = packet.__name__
        if name not in _FREE and not any(returned.alias_info for returned in func._schema.returns):
            flops = flop_registry[packet](*args, **(kwargs or {}), out_val=result) if packet in flop_registry else 0
            self.note(name, (args, kwargs, result), flops)
        return result

    def note(self, name: str, values: Any, flops: int = 0) -> None:
        """Record a launch that reads or writes these values."""
        self.kernels.append(Kernel(name, _bytes_of(values), int(flops)))


class _Fused(TorchFunctionMode):
    """Count attention and RMS norms as one kernel, like a GPU; the meta device decomposes them.

    The meta device has no values: a timestep counts as 0, and a tensor is equal only to itself.
    """

    def __init__(self, launches: _Launches) -> None:
        super().__init__()
        self._launches = launches

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            query, key, value = (given for given, _ in zip([*args, *_named(kwargs)], range(3), strict=False))
            out = query.new_empty(*query.shape[:-1], value.shape[-1])
            pairs = math.prod(query.shape[:-1]) * key.shape[-2]
            self._launches.note("attention", (query, key, value, out), 2 * pairs * (query.shape[-1] + value.shape[-1]))
            return out
        if func is torch.Tensor.tolist and args[0].is_meta:
            return torch.zeros(args[0].shape).tolist()
        if func is torch.equal and args[0].is_meta:
            return args[0] is args[1]
        if func is functional.rms_norm:
            out = torch.empty_like(args[0])
            self._launches.note("rms_norm", (args[0], out))
            return out
        return func(*args, **kwargs)


def _named(kwargs: dict[str, Any]) -> list[Any]:
    return [kwargs[name] for name in ("query", "key", "value") if name in kwargs]


def _bytes_of(values: Any) -> int:
    tensors = {id(leaf): leaf for leaf in pytree.tree_leaves(values) if isinstance(leaf, torch.Tensor)}
    return sum(_size(tensor) for tensor in tensors.values())


def _size(tensor: torch.Tensor) -> int:
    """Bytes of a tensor; repetitions along an expanded axis are read from the cache."""
    shape: Sequence[int] = [size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride]
    return math.prod(shape) * tensor.element_size()


@contextmanager
def _without_numbers() -> Iterator[None]:
    """Answers of a real device to the runtime: bits are the same, and autocast is off."""
    exact, rewrites._is_exact = rewrites._is_exact, lambda *_: True
    call, FusedSums.__call__ = FusedSums.__call__, _as_one_kernel  # type: ignore[method-assign]
    autocast, torch.is_autocast_enabled = torch.is_autocast_enabled, lambda *_: False
    try:
        yield
    finally:
        rewrites._is_exact, torch.is_autocast_enabled = exact, autocast
        FusedSums.__call__ = call  # type: ignore[method-assign]


def _as_one_kernel(sums: FusedSums, *tensors: torch.Tensor) -> Sequence[torch.Tensor]:
    launches = _get_current_dispatch_mode()
    assert isinstance(launches, _Launches)
    with _disable_current_modes():
        results = sums._operators(*tensors)
    launches.note("fused", (tensors, results))
    return results
