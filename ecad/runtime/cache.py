"""The way in: run a cache schedule on an off-the-shelf diffusers pipeline, and stop doing so.

    with ecad.cached(pipe, schedule) as run:
        image = pipe("a fox", num_inference_steps=schedule.num_steps).images[0]
    print(run.stats)

Nothing is subclassed, rebuilt or shared between pipelines. A schedule belongs to the denoiser, and holds for the
generations of the pipeline that it was enabled on, or of others on the same scheduler. Whatever else runs the denoiser
computes everything and keeps nothing, and so does a forward with gradients enabled.
"""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import nn

from ecad.errors import EcadError, EcadWarning, ScheduleError
from ecad.runtime.caller import Scope, Site, calls_method_of, running
from ecad.runtime.compatibility import other_cache
from ecad.runtime.denoiser import CachedDenoiser
from ecad.runtime.generation import Generation
from ecad.runtime.kept_outputs import CacheStats, Storage, Tally
from ecad.runtime.overrides import overrides_on
from ecad.runtime.rows import GivenRow, SchedulerWatch
from ecad.schedules import CacheSchedule
from ecad.schedules.plan import Plan
from ecad.schedules.rows import steps_of
from ecad.sites.discovery import denoisers, unwrapped


def enable_cache(
    pipe: Any,
    schedule: CacheSchedule | Mapping[str, CacheSchedule],
    *,
    keep_device: str | torch.device | None = None,
    keep_dtype: torch.dtype | None = None,
) -> CacheRun:
    """Run a pipeline's denoiser under a schedule from now on; replaces the schedule it had.

    Args:
        pipe: a diffusers pipeline, or a bare denoiser whose loop calls `CacheRun.step`.
        schedule: one schedule, or a dict of denoiser name -> schedule where the pipeline has several. Its sites are
            those of `CacheSchedule.for_model`, or submodules of the denoiser, named by hand: ("layers.0", "mixer").
        keep_device: keep outputs there, such as "cpu", instead of where they are computed: less memory, more time.
        keep_dtype: keep outputs in this floating point type, such as torch.float8_e4m3fn: images differ a little.

    Returns:
        The handle: `.stats`, `.memory()`, `.disable()`, `.step(i)`.

    Raises:
        ScheduleError: the schedule's sites are not the denoiser's, or it says that it was made for another one; and,
            when the pipeline runs, its rows are not the run's steps.
        EcadError: the pipeline has no denoiser to cache.

    Warns (EcadWarning) of another variant, number of steps, sampler or resolution than it was made for, of gradients,
    and of another cache on the same denoiser.

    >>> from diffusers import DiTTransformer2DModel
    >>> denoiser = DiTTransformer2DModel(num_attention_heads=2, attention_head_dim=8, num_layers=1, norm_num_groups=1)
    >>> run = enable_cache(denoiser, CacheSchedule.for_model(denoiser, steps=20))
    >>> run.stats.computed
    0
    >>> run.disable()
    """
    modules = denoisers(pipe)
    schedules = dict(schedule) if isinstance(schedule, Mapping) else dict.fromkeys(modules, schedule)
    if not isinstance(schedule, Mapping) and len(modules) > 1:
        raise EcadError(
            f"{type(pipe).__name__} has several denoisers: expected a dict with a schedule for any of "
            f"{', '.join(modules)}, found one schedule"
        )
    if unknown := [name for name in schedules if name not in modules]:
        raise EcadError(
            f"{type(pipe).__name__} has no denoiser {unknown[0]!r}: expected a schedule for any of {', '.join(modules)}"
        )
    storage = Storage(keep_device, keep_dtype) if keep_device is not None or keep_dtype is not None else None
    run = CacheRun(pipe, {name: modules[name] for name in schedules}, schedules, storage)
    disable_cache(pipe)
    run._attach()
    return run


def disable_cache(pipe: Any) -> None:
    """Take every trace of a cache off a pipeline or a bare denoiser; nothing happens if it has none.

    Args:
        pipe: what was given to `enable_cache`, or a pipeline that shares its denoiser.
    """
    modules = denoisers(pipe)
    holders = [*modules.values(), *(getattr(pipe, name, pipe) for name in modules)]
    runs = {override.of for holder in holders for override in overrides_on(holder)}
    scheduler = getattr(pipe, "scheduler", None)
    if scheduler is not None:
        runs |= {override.of for override in overrides_on(scheduler) if getattr(override.of, "pipe", None) is pipe}
    for run in runs:
        if isinstance(run, CacheRun):
            run.disable()


@contextmanager
def cached(
    pipe: Any,
    schedule: CacheSchedule | Mapping[str, CacheSchedule],
    *,
    keep_device: str | torch.device | None = None,
    keep_dtype: torch.dtype | None = None,
) -> Iterator[CacheRun]:
    """Run a pipeline under a schedule within a `with` block, and without any cache after it.

    Arguments and errors as for `enable_cache`.
    """
    run = enable_cache(pipe, schedule, keep_device=keep_device, keep_dtype=keep_dtype)
    try:
        yield run
    finally:
        run.disable()


class _Loop(threading.local):
    """The loop of one's own that a thread is in.

    Attributes:
        generation: that has begun.
        inside: the same within one of its rows, None outside.
        last: the row entered last; -1 before any.
    """

    generation: Generation | None = None
    inside: Generation | None = None
    last = -1


class CacheRun:
    """The handle on an enabled cache; made by `enable_cache`.

    Attributes:
        stats: computed, reused and skipped calls and cached bytes since enabling.
        schedules: denoiser name -> schedule.
        pipe: what it is enabled on; None once it is disabled.
    """

    def __init__(
        self,
        pipe: Any,
        modules: Mapping[str, nn.Module],
        schedules: Mapping[str, CacheSchedule],
        storage: Storage | None,
    ) -> None:
        self.stats = CacheStats()
        self.schedules = dict(schedules)
        self.pipe = pipe
        tally = Tally(self.stats)
        self._denoisers = [
            CachedDenoiser(name, modules[name], schedules[name], self._who_calls, tally, storage) for name in schedules
        ]
        self._watch = SchedulerWatch(self._timesteps_set)
        self._generation: Generation | None = None
        self._unchecked: Generation | None = None
        self._loop = _Loop()
        self._running: list[Generation] = []
        self._told: set[str] = set()
        self._refuse_unequal_schedules()

    @property
    def plans(self) -> dict[str, Plan]:
        """Denoiser name -> what a whole generation does at each step and site."""
        return {denoiser.name: denoiser.plan for denoiser in self._denoisers}

    def memory(self) -> int:
        """Predict the most bytes that kept outputs hold at any moment of a generation like the last one.

        Nothing is computed: sizes are those of the first row that ran. Exact for a denoiser that runs in every row, as
        `stats.peak_cached_bytes` will tell; with several denoisers, or passes that come and go, never too little.

        Raises:
            EcadError: no row has run yet, so that sizes are not known.
        """
        peaks = [peak for denoiser in self._denoisers if (peak := denoiser.memory()) is not None]
        if not peaks:
            raise EcadError("memory is not known before the first row: expected a pipeline that has run, found none")
        return sum(peaks)

    def disable(self) -> None:
        """Put pipeline, denoiser and scheduler back as they were; `stats` stays readable."""
        if self.pipe is None:
            return
        for generation in self._running.copy():
            generation.end()
        self._watch.follow(None)
        for denoiser in self._denoisers:
            denoiser.detach()
        self.pipe = None

    @contextmanager
    def step(self, index: int) -> Iterator[None]:
        """Say that the denoiser forwards within belong to one row, in a loop that is not a pipeline's.

        Row 0 begins a new generation. All passes of a row (guidance as two forwards) go into one `with`. Each thread
        has a loop of its own.

        Args:
            index: the row, 0 to the schedule's last.

        Raises:
            ScheduleError: the schedule has no such row.
            EcadError: a row is entered twice in turn.
        """
        rows, loop = self._num_steps(), self._loop
        if not 0 <= index < rows:
            raise ScheduleError("the schedule has no such row", step=str(index), expected=f"0 to {rows - 1}")
        if index and index == loop.last:
            raise EcadError(f"step {index} was entered twice in turn: expected all its passes inside one `with`")
        generation = loop.generation
        if generation is None or generation.is_over or index == 0 or index != loop.last + 1:
            self._end_generation()
            if generation is not None:
                generation.end()
            generation = loop.generation = self._begin(Generation(GivenRow(), rows, self._ended))
        rows_now = generation.rows
        assert isinstance(rows_now, GivenRow)
        loop.last, before, loop.inside = index, loop.inside, generation
        try:
            with rows_now.at(index):
                yield
        except BaseException:
            generation.end()
            raise
        finally:
            loop.inside = before
        if index == rows - 1:
            generation.end()
            loop.last = -1

    def __reduce__(self) -> Any:
        return type(None), ()  # a copy of an enabled pipeline is not enabled

    def _attach(self) -> None:
        self._warn_of_others()
        self._watch.follow(getattr(self.pipe, "scheduler", None), self)
        for denoiser in self._denoisers:
            denoiser.attach(self._called(denoiser), self)

    def _called(self, denoiser: CachedDenoiser) -> Any:
        """What the pipeline calls."""
        return self.pipe if isinstance(self.pipe, nn.Module) else getattr(self.pipe, denoiser.name)

    def _who_calls(self) -> tuple[Generation, Site] | None:
        """The generation that the forward which begins now belongs to, and from where in it it is called."""
        generation = self._loop.inside or self._generation_of_scheduler()
        site = None if generation is None else generation.site()
        if generation is None or site is None:
            return None
        if torch.is_grad_enabled():
            self._tell("gradients are enabled, so that nothing is cached: call the denoiser under torch.no_grad()")
            return None
        if generation is self._unchecked and (misfit := self._misfit(has_begun=True)) is not None:
            self._end_generation()
            raise misfit
        self._unchecked = None
        return generation, site

    def _generation_of_scheduler(self) -> Generation | None:
        scheduler = getattr(self.pipe, "scheduler", None)
        if scheduler is not self._watch.scheduler:
            self._watch.follow(scheduler, self)
            if getattr(scheduler, "num_inference_steps", None) is not None:
                self._follow_timesteps(begun=[])
        return self._generation

    def _timesteps_set(self) -> None:
        self._refuse_replaced_denoiser()
        self._follow_timesteps(running())
        # On a shared scheduler this may be another pipeline's generation; ours is checked when the denoiser runs.
        misfit = self._misfit(has_begun=False)
        if misfit is not None and not self._watch.is_shared and not calls_method_of(self._is_another_pipeline):
            self._end_generation()
            raise misfit

    def _follow_timesteps(self, begun: Sequence[weakref.ref[Scope]]) -> None:
        self._end_generation()
        rows = self._watch.begin(lambda: getattr(self.pipe, "num_timesteps", None))
        made = Generation(rows, self._num_steps(), self._ended, begun)
        self._generation = self._unchecked = self._begin(made)

    def _is_another_pipeline(self, one: object) -> bool:
        scheduler = self._watch.scheduler
        return one is not self.pipe and one is not scheduler and getattr(one, "scheduler", None) is scheduler

    def _begin(self, generation: Generation) -> Generation:
        self._warn_of_others()
        for denoiser in self._denoisers:
            denoiser.attach(self._called(denoiser), self)
        self._running.append(generation)
        return generation

    def _ended(self, generation: Generation) -> None:
        if generation in self._running:
            self._running.remove(generation)
        if generation is self._generation:
            self._generation = None
        if not self._running:
            for denoiser in self._denoisers:
                denoiser.release()

    def _warn_of_others(self) -> None:
        for denoiser in self._denoisers:
            other = other_cache(denoiser.module)
            if other is not None:
                self._tell(f"{other} caches {denoiser.name} too, and one cache sees what the other left: disable one")

    def _tell(self, what: str) -> None:
        if what not in self._told:
            self._told.add(what)
            warnings.warn(EcadWarning(what), stacklevel=2)

    def _refuse_replaced_denoiser(self) -> None:
        for denoiser in self._denoisers:
            if unwrapped(getattr(self.pipe, denoiser.name)) is not denoiser.module:
                self._generation = None
                raise EcadError(
                    f"the pipeline's {denoiser.name} was replaced after its cache was enabled; call enable_cache again"
                )

    def _misfit(self, has_begun: bool) -> ScheduleError | None:
        """Why the scheduler's generation has other rows than the schedule, as far as is known; None if it has not."""
        scheduler, steps = self._watch.scheduler, self._num_steps()
        rows = len(scheduler.timesteps)
        # Some samplers end their timesteps with where the last row arrives.
        is_shorter = rows == steps + 1 and getattr(scheduler, "num_inference_steps", None) == steps
        if is_shorter and getattr(scheduler, "order", 1) == 1:
            rows = steps if not has_begun or getattr(self.pipe, "num_timesteps", None) == steps else rows
        if rows == steps:
            return None
        name, remedy = next(iter(self.schedules.values())).name, f"use schedule.resample(steps={rows})"
        with suppress(ScheduleError):  # a sampler may have no number of steps that makes these rows
            remedy = f"call the pipeline with {steps_of(scheduler, steps, name)} steps, or {remedy}"
        return ScheduleError(
            f"schedule {name!r} does not fit this run",
            expected=f"{steps} rows, the schedule's",
            found=f"{rows}",
            remedy=remedy,
        )

    def _end_generation(self) -> None:
        if self._generation is not None:
            self._generation.end()

    def _refuse_unequal_schedules(self) -> None:
        rows = {name: schedule.num_steps for name, schedule in self.schedules.items()}
        if len(set(rows.values())) != 1:
            raise ScheduleError(
                "the schedules of one pipeline share its clock",
                expected="one denoiser at least, and equally many rows for each",
                found=", ".join(f"{name} {count}" for name, count in rows.items()) or "no schedule",
            )

    def _num_steps(self) -> int:
        return next(iter(self.schedules.values())).num_steps
