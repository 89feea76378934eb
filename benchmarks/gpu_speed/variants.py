"""The timed variants: the bare model, schedules of this project, and rivals that compute the same steps.

Thresholds have no meaning with random weights, so every rival computes every second step, like `every 2`. What
a rival tests in each step (a difference of residuals, a ratio) still runs. Each variant names the schedule with the
same computed steps, whose MACs give the theoretical speed-up.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from diffusers import hooks
from diffusers.models.cache_utils import CacheMixin
from rivals.put_back import put_back

from ecad.cost.table import CostTable
from ecad.runtime.cache import cached
from ecad.schedules import CacheSchedule, heuristics
from ecad.sites.discovery import discover
from gpu_speed.models import Loop, Model

os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "ERROR")

BARE = "bare"


@dataclass(frozen=True)
class Variant:
    """One variant.

    Args:
        name: name in the table.
        computes: the schedule that computes the same.
        applied: a context that enables it on a loop; gives the run of a schedule of this project.
    """

    name: str
    computes: CacheSchedule
    applied: Callable[[Loop], AbstractContextManager[Any]]


def schedules(
    loop: Loop, table: CostTable, published: Path | None = None, names: tuple[str, ...] | None = None
) -> list[Variant]:
    """The bare loop, and the loop with schedules of this project.

    Args:
        loop: the model.
        table: cost table of its sites.
        published: folder of published schedules, searched for `flux_256/ours_fast.json` and the like.
        names: names of the variants; None for all.
    """
    sites, steps = table.sites, loop.steps
    none = heuristics.none(sites, steps)
    halves = [heuristics.every_n(sites, steps, n) for n in (2, 3)]
    given = {"all ones": none, "every 2": halves[0], "every 3": halves[1]}
    for name, ratio in zip(("ours_fast", "ours_faster"), loop.model.published_ratios, strict=True):
        found = find_published(loop.model, published, name)
        alike = f"like {name}, {ratio:.2f}x"
        given[name if found else alike] = _fitted(found, sites, steps) if found else share(table, steps, ratio)
    given |= {"forecast 1/2": halves[0].replace(forecast=True), "forecast 1/3": halves[1].replace(forecast=True)}
    variants = [Variant(BARE, none, lambda loop: nullcontext())]
    variants += [Variant(name, schedule, partial(_under, schedule)) for name, schedule in given.items()]
    return [variant for variant in variants if names is None or variant.name in (BARE, *names)]


def fused(loop: Loop, table: CostTable) -> list[Variant]:
    """Schedules of whole rows with and without `fuse_rows`, and the bare loop."""
    found = schedules(loop, table, names=("every 2", "every 3"))
    for variant in found[1:]:
        run = partial(_under, variant.computes, fuse_rows=True)
        found.append(Variant(f"{variant.name}, fused", variant.computes, run))
    return found


def rivals(loop: Loop, table: CostTable) -> list[Variant]:
    """The caches of diffusers, and cache-dit if it is installed, each computing every second step."""
    every_2 = heuristics.every_n(table.sites, loop.steps, 2)
    first_block = every_2.recompute.copy()
    first_block[:, [block == table.sites[0][0] for block, _ in table.sites]] = True
    attention = every_2.recompute.copy()
    attention[:, ["attn" not in component for _, component in table.sites]] = True
    patterns = [site.path.replace(".", r"\.") for site in discover(loop.transformer)]
    configs: dict[str, tuple[np.ndarray, Any]] = {
        "FirstBlockCache": (first_block, hooks.FirstBlockCacheConfig(threshold=float("inf"))),
        "TaylorSeer": (
            every_2.recompute,
            hooks.TaylorSeerCacheConfig(2, disable_cache_before_step=1, max_order=1, cache_identifiers=patterns),
        ),
        "MagCache": (
            every_2.recompute,
            hooks.MagCacheConfig(float("inf"), 1, 0.0, loop.steps, mag_ratios=[1.0] * loop.steps),
        ),
        "PAB": (
            attention,
            hooks.PyramidAttentionBroadcastConfig(
                spatial_attention_block_skip_range=2,
                cross_attention_block_skip_range=2,
                spatial_attention_timestep_skip_range=(-1, 1001),
                cross_attention_timestep_skip_range=(-1, 1001),
                current_timestep_callback=lambda: 500,
            ),
        ),
    }
    found = [
        Variant(f"diffusers {name}", every_2.replace(recompute=bits), partial(_in_diffusers, config))
        for name, (bits, config) in configs.items()
    ]
    if importlib.util.find_spec("cache_dit") is not None:
        found.append(Variant("cache-dit DBCache", every_2.replace(recompute=first_block), _in_cache_dit))
    return found


def share(table: CostTable, steps: int, ratio: float) -> CacheSchedule:
    """A schedule of recomputed components with a given MAC reduction.

    Args:
        table: MACs of the model's sites.
        steps: number of rows.
        ratio: MAC reduction; the nearest one possible is used.
    """
    drawn = np.random.default_rng(0).random((steps, len(table.sites)))
    drawn[0] = 0.0
    shares = np.linspace(0.0, 1.0, 201)
    found = table.price(np.stack([drawn <= limit for limit in shares]))
    closest = shares[np.abs(found[-1] / found - ratio).argmin()]
    return CacheSchedule(drawn <= closest, table.sites, name=f"share {closest:.3f}")


def find_published(model: Model, folder: Path | None, name: str) -> CacheSchedule | None:
    """A published schedule of a model, if there is one in the folder."""
    files = sorted(folder.rglob(f"{model.published}/{name}.json")) if folder and model.published else []
    return CacheSchedule.load(files[0]) if files else None


def _fitted(schedule: CacheSchedule, sites: Any, steps: int) -> CacheSchedule:
    return schedule.resample(steps=steps, sites=sites) if schedule.num_steps != steps else schedule


def _under(schedule: CacheSchedule, loop: Loop, fuse_rows: bool = False) -> AbstractContextManager[Any]:
    return cached(loop, schedule, fuse_rows=fuse_rows)


@contextmanager
def _in_diffusers(config: Any, loop: Loop) -> Iterator[None]:
    """A cache of diffusers on the denoiser; adds the mixin to its class meanwhile, if needed."""
    transformer, kind = loop.transformer, type(loop.transformer)
    first_block = isinstance(config, hooks.FirstBlockCacheConfig)
    with put_back(loop):
        if not isinstance(transformer, CacheMixin):
            transformer.__class__ = type(kind.__name__, (kind, CacheMixin), {})
        loop.before_row = partial(_reset, transformer, 2 if first_block else loop.steps)
        transformer.enable_cache(config)
        try:
            yield
        finally:
            transformer.disable_cache()


def _reset(transformer: Any, rows: int, row: int) -> None:
    """Reset a cache at the beginning of a generation, and every few rows if it would never compute again."""
    if row % rows == 0:
        transformer._reset_stateful_cache()


@contextmanager
def _in_cache_dit(loop: Loop) -> Iterator[None]:
    import cache_dit

    config = cache_dit.DBCacheConfig(
        Fn_compute_blocks=1,
        Bn_compute_blocks=0,
        residual_diff_threshold=1e9,
        num_inference_steps=loop.steps,
        enable_separate_cfg=len(loop.model.passes) > 1,
        steps_computation_mask=[1 - row % 2 for row in range(loop.steps)],
        steps_computation_policy="static",
    )
    transformer = loop.transformer
    with put_back(loop):
        target = transformer
        if type(transformer).__name__ == "SD3Transformer2DModel":  # needs the pipeline, not only the denoiser
            target = cache_dit.BlockAdapter(
                transformer=transformer,
                blocks=transformer.transformer_blocks,
                forward_pattern=cache_dit.ForwardPattern.Pattern_1,
            )
        cached_one = cache_dit.enable_cache(target, cache_config=config)
        try:
            yield
        finally:
            cache_dit.disable_cache(cached_one)
