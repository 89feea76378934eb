"""Measures the latency of each component of a denoiser on this device, as an additive table of nanoseconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from statistics import median
from time import perf_counter_ns

import numpy as np
import torch
from torch import nn

from ecad.cost.table import CostTable
from ecad.image_generators.generator import ImageGenerator
from ecad.prompts.embeds import PromptEmbeds
from ecad.schedules import CacheSchedule, heuristics
from ecad.sites.discovery import discover, one_denoiser
from ecad.sites.readers import readers
from ecad.utils.device import synchronize

# A point in time: nanoseconds of the clock, or a CUDA event.
Mark = int | torch.cuda.Event


def latency_table(generator: ImageGenerator, embeds: PromptEmbeds, rounds: int = 3) -> CostTable:
    """Measure the latency of an image by step and site, in nanoseconds.

    The difference between a forward that computes everything and one that reuses everything is divided among the sites
    in proportion to their own times. So the time of norms and gates, which are skipped with a reused component, is part
    of the component's cost.

    Args:
        generator: the generator to measure: denoiser and VAE.
        embeds: one entry per image of the batch.
        rounds: number of batches of each kind that count; one more of each is made before as a warm-up.
    """
    denoiser = one_denoiser(generator.pipe)
    sites = discover(denoiser)
    modules = [site.module for site in sites]
    rows = generator.rows()
    uncached = heuristics.none(tuple((site.block, site.component) for site in sites), rows)
    first_step = np.zeros_like(uncached.recompute)
    first_step[0] = True
    reusing = CacheSchedule(first_step, uncached.sites, "first step only", config=uncached.config)
    outside, forwards, reused = [], [], []
    per_module: list[list[list[float]]] = []
    for number in range(-1, rounds):
        whole, [full] = _run(generator, embeds, uncached, [denoiser])
        _, [_, *inside] = _run(generator, embeds, uncached, [denoiser, *modules])
        _, [cheap] = _run(generator, embeds, reusing, [denoiser])
        if number >= 0:
            outside.append(whole - sum(full))
            forwards += full[1:]
            reused += cheap[1:]
            per_module.append(inside)
    own = np.array([median(time for inside in per_module for time in inside[i]) for i in range(len(sites))])
    saved = max(median(forwards) - median(reused), 0.0)
    passes, batch = len(full) / rows, len(embeds)
    without_denoiser = median(outside) / rows
    return CostTable(
        uncached.sites,
        round((passes * median(reused) + without_denoiser) / batch),
        np.round(passes * saved * own / own.sum() / batch).astype(np.int64),
        readers(uncached.sites),
        round(without_denoiser / batch),
    )


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
