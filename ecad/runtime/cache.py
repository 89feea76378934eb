"""Public API: enable and disable a cache schedule on an off-the-shelf diffusers pipeline.

    with ecad.cached(pipe, schedule) as run:
        image = pipe("a fox", num_inference_steps=schedule.num_steps).images[0]
    print(run.stats)

Nothing is subclassed, rebuilt or shared between pipelines. A schedule belongs to the denoiser, and holds for the
generations of the pipeline that it was enabled on, or of others on the same scheduler. Whatever else runs the denoiser
computes everything and keeps nothing, and so does a forward with gradients enabled.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from ecad.errors import EcadError
from ecad.runtime.cache_run import NO_FRONT, CacheRun
from ecad.runtime.engines import EngineProxy
from ecad.runtime.kept_outputs import Storage
from ecad.runtime.overrides import overrides_on
from ecad.schedules import CacheSchedule
from ecad.schedules.front import Front
from ecad.schedules.joint import by_denoiser
from ecad.sites.discovery import denoisers


def enable_cache(
    pipe: Any,
    schedule: CacheSchedule | Mapping[str, CacheSchedule] | Front | str | os.PathLike[str],
    *,
    speedup: float | None = None,
    quality: float | None = None,
    exact: bool = False,
    keep_device: str | torch.device | None = None,
    keep_dtype: torch.dtype | None = None,
    fuse_rows: bool = False,
) -> CacheRun:
    """Run a pipeline's denoiser under a schedule from now on; replaces the schedule it had.

    Args:
        pipe: a diffusers pipeline, its denoiser any callable; or a bare module whose loop calls `CacheRun.step`.
        schedule: one schedule; or a front, or where `Front.load` finds one. Its sites are those of
            `CacheSchedule.for_model`, or submodules of the denoiser, named by hand: ("layers.0", "mixer"). Where the
            pipeline has several denoisers, its blocks name theirs, as a search writes it: ("transformer_2.0", "ff"); or
            a dict of denoiser name -> schedule.
        speedup, quality: which schedule of a front; as for `Front.pick`.
        exact: refuse a run of other rows than the schedule's, instead of resampling the schedule.
        keep_device: keep outputs there, such as "cpu", instead of where they are computed: less memory, more time.
        keep_dtype: keep outputs in this floating point type, such as torch.float8_e4m3fn: images differ a little.
        fuse_rows: compile rows that compute no component: the same images, after some seconds (docs/runtime.md).

    Returns:
        The handle: `.switch()`, `.stats`, `.memory()`, `.disable()`, `.step(i)`.

    Raises:
        ScheduleError: the schedule's sites are not the denoiser's, or it says that it was made for another one; and,
            when the pipeline runs, its rows are not the run's and it is `exact` or cannot be resampled.
        EcadError: the pipeline has no denoiser to cache, or no schedule of the front is that cheap or that good.

    Warns (EcadWarning) of a variant, steps, sampler or resolution it was not made for, of gradients, of another cache.

    >>> from diffusers import DiTTransformer2DModel
    >>> denoiser = DiTTransformer2DModel(num_attention_heads=2, attention_head_dim=8, num_layers=1, norm_num_groups=1)
    >>> run = enable_cache(denoiser, CacheSchedule.for_model(denoiser, steps=20))
    >>> run.stats.computed
    0
    >>> run.disable()
    """
    modules = denoisers(pipe)
    front = None
    if isinstance(schedule, (str, os.PathLike)):
        schedule = Front.load(schedule)
    if isinstance(schedule, Front):
        front, schedule = schedule, schedule.point(speedup=speedup, quality=quality).choice
    elif speedup is not None or quality is not None:
        raise EcadError(NO_FRONT)
    schedules = dict(schedule) if isinstance(schedule, Mapping) else by_denoiser(schedule, list(modules))
    if unknown := [name for name in schedules if name not in modules]:
        raise EcadError(
            f"{type(pipe).__name__} has no denoiser {unknown[0]!r}: expected a schedule for any of {', '.join(modules)}"
        )
    storage = Storage(keep_device, keep_dtype) if keep_device is not None or keep_dtype is not None else None
    run = CacheRun(pipe, {name: modules[name] for name in schedules}, schedules, front, exact, storage, fuse_rows)
    disable_cache(pipe)
    run.attach()
    return run


def disable_cache(pipe: Any) -> None:
    """Take every trace of a cache off a pipeline or a bare denoiser; nothing happens if it has none.

    Args:
        pipe: what was given to `enable_cache`, or a pipeline that shares its denoiser.
    """
    for run in enabled_runs(pipe):
        run.disable()


def enabled_runs(pipe: Any) -> list[CacheRun]:
    """The caches that are enabled on a pipeline or a bare denoiser, or on one that it shares.

    Args:
        pipe: as for `disable_cache`.
    """
    modules = denoisers(pipe)
    called = [getattr(pipe, name, pipe) for name in modules]
    holders = [*modules.values(), *(one.module if isinstance(one, EngineProxy) else one for one in called)]
    runs = {override.of for holder in holders if hasattr(holder, "__dict__") for override in overrides_on(holder)}
    scheduler = getattr(pipe, "scheduler", None)
    if scheduler is not None:
        runs |= {override.of for override in overrides_on(scheduler) if getattr(override.of, "pipe", None) is pipe}
    return [run for run in runs if isinstance(run, CacheRun)]


@contextmanager
def cached(
    pipe: Any,
    schedule: CacheSchedule | Mapping[str, CacheSchedule] | Front | str | os.PathLike[str],
    *,
    speedup: float | None = None,
    quality: float | None = None,
    exact: bool = False,
    keep_device: str | torch.device | None = None,
    keep_dtype: torch.dtype | None = None,
    fuse_rows: bool = False,
) -> Iterator[CacheRun]:
    """Run a pipeline under a schedule within a `with` block, and without any cache after it.

    Arguments and errors as for `enable_cache`.
    """
    run = enable_cache(
        pipe,
        schedule,
        speedup=speedup,
        quality=quality,
        exact=exact,
        keep_device=keep_device,
        keep_dtype=keep_dtype,
        fuse_rows=fuse_rows,
    )
    try:
        yield run
    finally:
        run.disable()
