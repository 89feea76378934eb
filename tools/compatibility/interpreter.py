"""A slow, simple interpreter of schedules: a dictionary of outputs, and a recording that identifies each forward.

Where a schedule computes, or nothing is cached, a component runs and its output is cached. Otherwise the cached output
is returned. The key is the pass, the component and the number of its call within the forward. A pass that missed a
row, or whose tensors have another shape, starts with an empty cache.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import torch
from recording import Forward, Recording
from torch import nn
from torch.utils import _pytree as pytree

from ecad import CacheSchedule
from ecad.sites.discovery import discover


class NotTheSame(Exception):
    """The generation makes other forwards than the recorded ones."""


@dataclass
class Interpretation:
    """The output, and the numbers of computed and reused calls of components."""

    output: Any
    computed: int
    reused: int


def interpret(
    run: Callable[[], Any],
    denoisers: Mapping[str, nn.Module],
    schedules: Mapping[str, CacheSchedule],
    recording: Recording,
) -> Interpretation:
    """Run a pipeline once with schedules.

    Args:
        run: calls the pipeline once, with the arguments of the recording.
        denoisers: name -> module.
        schedules: name -> schedule.
        recording: recording of the bare pipeline.

    Raises:
        NotTheSame: the pipeline makes other forwards than the recording's.
    """
    state = _State(recording.forwards)
    replaced: list[tuple[nn.Module, Any]] = []

    def replace(module: nn.Module, forward: Callable[..., Any]) -> None:
        replaced.append((module, vars(module).get("forward")))
        module.forward = wraps(module.forward)(forward)  # pipelines inspect its signature

    for name, schedule in schedules.items():
        sites = [site for site in discover(denoisers[name]) if site.path]
        # A denoiser without sites is itself a site.
        replace(denoisers[name], state.denoiser(name, schedule, not sites, denoisers[name].forward))
        column = {site: place for place, site in enumerate(schedule.sites)}
        for site in sites:
            bits = schedule.recompute[:, column[site.block, site.component]].tolist()
            replace(site.module, state.component(site.path, bits, schedule.forecast, site.module.forward))
    try:
        output = run()
    finally:
        for module, forward in reversed(replaced):
            if forward is None:
                del module.forward
            else:
                module.forward = forward
    if state.at != len(recording.forwards) - 1:
        raise NotTheSame(f"{state.at + 1} forwards instead of {len(recording.forwards)}")
    return Interpretation(output, state.computed, state.reused)


@dataclass
class _Kept:
    row: int
    output: Any
    shown: Any


@dataclass
class _State:
    forwards: list[Forward]
    at: int = -1
    computed: int = 0
    reused: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    kept: dict[Any, dict[Any, _Kept]] = field(default_factory=dict)
    last: dict[Any, tuple[int, Any]] = field(default_factory=dict)

    def denoiser(
        self, name: str, schedule: CacheSchedule, is_site: bool, forward: Callable[..., Any]
    ) -> Callable[..., Any]:
        runs = schedule.recompute.any(axis=1).tolist()

        def call(*args: Any, **kwargs: Any) -> Any:
            self._next(name)
            now = self.forwards[self.at]
            if not (schedule.forecast or is_site) or now.row is None:
                return forward(*args, **kwargs)
            return self._answer("", runs, schedule.forecast, forward, args, kwargs)

        return call

    def component(self, path: str, bits: list[bool], draws: bool, forward: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.forwards[self.at].row is None:
                return forward(*args, **kwargs)
            number = self.calls[path]
            self.calls[path] += 1
            return self._answer((path, number), bits, draws, forward, args, kwargs)

        return call

    def _next(self, name: str) -> None:
        self.at += 1
        if self.at >= len(self.forwards) or self.forwards[self.at].denoiser != name:
            raise NotTheSame(f"forward {self.at} is of {name}")
        self.calls.clear()
        now = self.forwards[self.at]
        if now.row is None:
            return
        row, shapes = self.last.get(now.key, (now.row - 1, now.shapes))
        if row != now.row - 1 or shapes != now.shapes:
            self.kept.pop(now.key, None)
        self.last[now.key] = now.row, now.shapes

    def _answer(
        self, place: Any, bits: list[bool], draws: bool, forward: Callable[..., Any], args: Any, kwargs: Any
    ) -> Any:
        now = self.forwards[self.at]
        assert now.row is not None
        kept = self.kept.setdefault(now.key, {})
        before = kept.get(place)
        if before is not None and not bits[now.row]:
            self.reused += 1
            return _clone(before.shown)
        self.computed += 1
        output = forward(*args, **kwargs)
        mine = _clone(output)
        line = draws and before is not None
        kept[place] = _Kept(now.row, mine, _ahead(mine, before.output, now.row - before.row) if line else mine)
        return output


def _clone(value: Any) -> Any:
    return pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.detach().clone(), value)


def _ahead(now: Any, before: Any, rows: int) -> Any:
    """Linear extrapolation by one row from two outputs."""

    def draw(last: Any, first: Any) -> Any:
        if not isinstance(last, torch.Tensor) or not last.is_floating_point():
            return last
        return torch.add(last, last - first, alpha=1 / rows)

    return pytree.tree_map(draw, now, before)
