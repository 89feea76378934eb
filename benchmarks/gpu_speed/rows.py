"""Profiles one row: its kernels, and the busy and idle time of the device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from gpu_speed.models import Loop
from gpu_speed.variants import Variant


def look_at_row(loop: Loop, variant: Variant, row: int) -> dict[str, Any]:
    """Profile one row of a second batch.

    Args:
        loop: the model.
        variant: the variant.
        row: index of the row.

    Returns:
        `launches` (operators without views on a CPU), and `busy`, `span` and `idle` seconds of the device.
    """
    is_cuda = loop.latents.device.type == "cuda"
    watch = profile(activities=[ProfilerActivity.CUDA if is_cuda else ProfilerActivity.CPU], acc_events=True)

    @contextmanager
    def around(now: int) -> Iterator[None]:
        if now != row:
            yield
            return
        if is_cuda:
            torch.cuda.synchronize()
        with watch:
            yield
            if is_cuda:
                torch.cuda.synchronize()

    with variant.applied(loop):
        loop()
        loop(around)
    return summary(_intervals(watch.events(), is_cuda))


def summary(intervals: Iterable[tuple[float, float]]) -> dict[str, Any]:
    """Busy and idle time of overlapping intervals in microseconds.

    >>> summary([(0.0, 2.0), (1.0, 3.0), (5.0, 6.0)])
    {'launches': 3, 'busy': 4e-06, 'span': 6e-06, 'idle': 2e-06}
    """
    ordered = sorted(intervals)
    busy, end = 0.0, float("-inf")
    for begin, finish in ordered:
        busy += max(0.0, finish - max(begin, end))
        end = max(end, finish)
    span = end - ordered[0][0] if ordered else 0.0
    return {"launches": len(ordered), "busy": busy / 1e6, "span": span / 1e6, "idle": (span - busy) / 1e6}


def _intervals(events: Any, is_cuda: bool) -> Iterator[tuple[float, float]]:
    """Begin and end of all kernels and copies on the device, or of operators that call no others."""
    for event in events:
        if is_cuda:
            runs = event.device_type == DeviceType.CUDA and not event.is_user_annotation
        else:
            runs = event.name.startswith("aten::") and not event.cpu_children and event.name not in _VIEWS
        if runs:
            yield event.time_range.start, event.time_range.end


_NAMES = "as_strided", "view", "slice", "unsqueeze", "expand", "_unsafe_view", "empty", "resolve_conj", "resolve_neg"
_VIEWS = {f"aten::{name}" for name in _NAMES}
