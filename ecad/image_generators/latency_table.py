"""What each component of a denoiser takes on this device: an additive table of nanoseconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from statistics import median
from time import perf_counter_ns
from typing import Any

import numpy as np
import torch
from torch import nn

from ecad.cost.table import CostTable
from ecad.image_generators.generator import ImageGenerator
from ecad.prompts.embeds import PromptEmbeds
from ecad.schedules import CacheSchedule, heuristics
from ecad.sites.discovery import discover
from ecad.sites.readers import readers
from ecad.utils.device import synchronize


def time_table(generator: ImageGenerator, embeds: PromptEmbeds, rounds: int = 3) -> CostTable:
    """Nanoseconds of an image, additive by step and site, from a few batches made in turns.

    The time of a forward that computes everything, less that of one that reuses everything, is shared out among the
    sites as their own times have it; so norms and gates, which go with a reused component, are in its price.

    Args:
        generator: makes the images, denoiser and VAE.
        embeds: one entry an image of the batch.
        rounds: batches of each kind that count; one more of each is made before them.
    """
    denoiser = generator.pipe.transformer
    sites = discover(denoiser)
    modules = [site.module for site in sites]
    rows = generator.rows()
    uncached = heuristics.none(tuple((site.block, site.component) for site in sites), rows)
    once = np.zeros_like(uncached.recompute)
    once[0] = True
    reusing = CacheSchedule(once, uncached.sites, "once", config=uncached.config)
    totals, forwards, reused = [], [], []
    parts: list[list[list[float]]] = []

    def run(schedule: CacheSchedule, watched: list[nn.Module]) -> tuple[float, list[list[float]]]:
        with _timed([denoiser, *watched], generator.pipe.device) as (mark, calls):
            begun = mark()
            generator.generate(embeds, range(len(embeds)), schedule)
            ended = mark()
        synchronize()
        return _between(begun, ended), [[_between(*pair) for pair in pairs] for pairs in calls]

    for number in range(-1, rounds):
        whole, [full] = run(uncached, [])
        _, [_, *inside] = run(uncached, modules)
        _, [cheap] = run(reusing, [])
        if number >= 0:
            totals.append(whole - sum(full))
            forwards += full[1:]
            reused += cheap[1:]
            parts.append(inside)
    own = np.array([median(time for part in parts for time in part[i]) for i in range(len(sites))])
    saved = max(median(forwards) - median(reused), 0.0)
    passes = len(full) / rows
    without_denoiser = median(totals) / rows
    per_step = passes * median(reused) + without_denoiser
    per_site = passes * saved * own / own.sum()
    batch = len(embeds)
    return CostTable(
        uncached.sites,
        round(per_step / batch),
        np.round(per_site / batch).astype(np.int64),
        readers(uncached.sites),
        round(without_denoiser / batch),
    )


@contextmanager
def _timed(
    modules: list[nn.Module], device: torch.device
) -> Iterator[tuple[Callable[[], Any], list[list[tuple[Any, ...]]]]]:
    """A function that marks the present, and a list that gets the marks of the begin and end of each module's calls."""
    calls: list[list[tuple[Any, ...]]] = [[] for _ in modules]

    def mark() -> Any:
        if device.type != "cuda":
            synchronize()
            return perf_counter_ns()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def begin(pairs: list[tuple[Any, ...]], *_: Any) -> None:
        pairs.append((mark(),))

    def end(pairs: list[tuple[Any, ...]], *_: Any) -> None:
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


def _between(begun: Any, ended: Any) -> float:
    """Nanoseconds between two marks."""
    return float(ended - begun) if isinstance(begun, int) else 1e6 * float(begun.elapsed_time(ended))
