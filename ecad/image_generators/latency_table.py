"""Measures the latency of each component of a denoiser on this device, as an additive table of nanoseconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from statistics import median
from time import perf_counter_ns

import numpy as np
import torch
from torch import nn

from ecad.cost.macs import macs_table
from ecad.cost.table import CostTable
from ecad.image_generators.generator import ImageGenerator
from ecad.prompts.embeds import PromptEmbeds
from ecad.schedules import CacheSchedule, heuristics
from ecad.sites.discovery import denoisers, discover
from ecad.sites.readers import readers
from ecad.sites.several import joint_sites
from ecad.utils.device import synchronize

# A point in time: nanoseconds of the clock, or a CUDA event.
Mark = int | torch.cuda.Event


def latency_table(generator: ImageGenerator, embeds: PromptEmbeds, rounds: int = 3) -> CostTable:
    """Measure the latency of an image by row and site, in nanoseconds.

    The difference between a forward that computes everything and one that reuses everything is divided among the sites
    in proportion to their own times. So the time of norms and gates, which are skipped with a reused component, is part
    of the component's cost.

    Args:
        generator: the generator to measure: denoisers and VAE.
        embeds: one entry per image of the batch.
        rounds: number of batches of each kind that count; one more of each is made before as a warm-up.
    """
    modules = denoisers(generator.pipe)
    found = {name: discover(module) for name, module in modules.items()}
    sites = joint_sites({name: [(site.block, site.component) for site in one] for name, one in found.items()})
    rows, active = generator.rows(), macs_table(generator.architecture).active
    uncached = heuristics.none(sites, rows)
    first_step = np.zeros_like(uncached.recompute)
    first_step[0] = True
    reusing = CacheSchedule(first_step, uncached.sites, "first step only", config=uncached.config)
    inner = [site.module for one in found.values() for site in one]
    outside = []
    times = [_Times() for _ in modules]
    for number in range(-1, rounds):
        whole, full = _run(generator, embeds, uncached, list(modules.values()))
        _, within = _run(generator, embeds, uncached, inner)
        _, cheap = _run(generator, embeds, reusing, list(modules.values()))
        if number < 0:
            continue
        outside.append(whole - sum(map(sum, full)))
        inside = _cut(within, [len(one) for one in found.values()])
        for place, one in enumerate(times):
            one.add(full[place], cheap[place], inside[place])
    by_denoiser = np.ones((rows, len(modules)), dtype=bool)
    if active is not None:
        by_denoiser = active[:, np.cumsum([0, *(len(one) for one in found.values())])[:-1]]
    ran = by_denoiser.any(axis=1)
    without = median(outside) / ran.sum() / len(embeds)
    costs = [one.per_row(int(count), len(embeds)) for one, count in zip(times, by_denoiser.sum(axis=0), strict=True)]
    per_site = np.round(np.concatenate([one for _, one in costs])).astype(np.int64)
    if active is None:
        return CostTable(sites, round(costs[0][0] + without), per_site, readers(sites), round(without))
    fixed = np.round(by_denoiser @ np.array([one for one, _ in costs]) + without * ran).astype(np.int64)
    return CostTable(sites, 0, per_site, readers(sites), round(without), active=active, fixed_by_row=fixed)


@dataclass
class _Times:
    """Nanoseconds of one denoiser: of its uncached forwards, of those that reuse, and of its sites, by round."""

    full: list[list[float]] = field(default_factory=list)
    cheap: list[list[float]] = field(default_factory=list)
    inside: list[list[list[float]]] = field(default_factory=list)

    def add(self, full: list[float], cheap: list[float], inside: list[list[float]]) -> None:
        """Add a round."""
        self.full.append(full)
        self.cheap.append(cheap)
        self.inside.append(inside)

    def per_row(self, rows: int, batch: int) -> tuple[float, np.ndarray]:
        """Nanoseconds per image of a row that reuses everything, and float (sites,) of what each site adds."""
        passes = len(self.full[0]) / rows
        # The first row computes, whatever its bits say.
        first = max(1, round(passes))
        forwards = [time for one in self.full for time in one[first:] or one]
        reused = [time for one in self.cheap for time in one[first:]] or forwards
        by_site = zip(*self.inside, strict=True)
        own = np.array([median(time for calls in rounds for time in calls) for rounds in by_site])
        saved = max(median(forwards) - median(reused), 0.0)
        return passes * median(reused) / batch, passes * saved * own / own.sum() / batch


def _cut(parts: list[list[float]], sizes: list[int]) -> list[list[list[float]]]:
    """Lists of the given sizes, one after the other."""
    ends = np.cumsum([0, *sizes]).tolist()
    return [parts[begin:end] for begin, end in pairwise(ends)]


def _run(
    generator: ImageGenerator, embeds: PromptEmbeds, schedule: CacheSchedule, modules: list[nn.Module]
) -> tuple[float, list[list[float]]]:
    """Make a batch; returns its time and the times of all calls of each module, in nanoseconds."""
    with _timed(modules, generator.pipe.device) as (mark, calls):
        begin = mark()
        generator.generate(embeds, range(len(embeds)), schedule)
        end = mark()
    synchronize()
    return _between(begin, end), [[_between(*pair) for pair in pairs] for pairs in calls]


@contextmanager
def _timed(
    modules: list[nn.Module], device: torch.device
) -> Iterator[tuple[Callable[[], Mark], list[list[tuple[Mark, ...]]]]]:
    """Mark the begin and end of all calls of some modules.

    Yields:
        a function that marks the present, and for each module a list that receives the (begin, end) of each call.
    """
    calls: list[list[tuple[Mark, ...]]] = [[] for _ in modules]

    def mark() -> Mark:
        if device.type != "cuda":
            synchronize()
            return perf_counter_ns()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def begin(pairs: list[tuple[Mark, ...]], *_: object) -> None:
        pairs.append((mark(),))

    def end(pairs: list[tuple[Mark, ...]], *_: object) -> None:
        pairs[-1] += (mark(),)

    handles = []
    for module, pairs in zip(modules, calls, strict=True):
        handles.append(module.register_forward_pre_hook(partial(begin, pairs)))
        handles.append(module.register_forward_hook(partial(end, pairs)))
    try:
        yield mark, calls
    finally:
        for handle in handles:
            handle.remove()


def _between(begin: Mark, end: Mark) -> float:
    """Nanoseconds between two marks."""
    if isinstance(begin, torch.cuda.Event) and isinstance(end, torch.cuda.Event):
        return 1e6 * float(begin.elapsed_time(end))
    return float(end - begin)  # type: ignore[operator]
