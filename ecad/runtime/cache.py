"""The way in: run a cache schedule on an off-the-shelf diffusers pipeline, and stop doing so.

    with ecad.cached(pipe, schedule) as run:
        image = pipe("a fox", num_inference_steps=schedule.num_steps).images[0]
    print(run.stats)

Nothing is subclassed, rebuilt or shared between pipelines. With gradients enabled a forward computes everything and
keeps nothing. A schedule belongs to the denoiser: pipelines that share the denoiser share its cache. A pipeline runs
one generation at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from ecad.errors import EcadError, ScheduleError
from ecad.runtime.clock import StepClock
from ecad.runtime.compatibility import check_run
from ecad.runtime.denoiser import CachedDenoiser
from ecad.runtime.kept_outputs import CacheStats, Storage
from ecad.runtime.overrides import Around
from ecad.schedules import CacheSchedule
from ecad.schedules.plan import Plan
from ecad.sites.discovery import denoisers, unwrapped

# Where a pipeline and its denoisers remember their run.
_RUN = "_ecad_run"


def enable_cache(
    pipe: Any,
    schedule: CacheSchedule | Mapping[str, CacheSchedule],
    *,
    keep_device: str | torch.device | None = None,
    keep_dtype: torch.dtype | None = None,
) -> CacheRun:
    """Run a pipeline's denoiser under a schedule from now on; replaces the schedule it had.

    Arguments:
        pipe: a diffusers pipeline, or a bare denoiser whose loop calls `CacheRun.step`.
        schedule: one schedule, or a dict of denoiser name -> schedule where the pipeline has several. Its sites are
            those of `CacheSchedule.for_model`, or submodules of the denoiser, named by hand: ("layers.0", "mixer").
        keep_device: keep outputs there, such as "cpu", instead of where they are computed: less memory, more time.
        keep_dtype: keep outputs in this floating point type, such as torch.float8_e4m3fn: images differ a little.

    Returns the handle: `.stats`, `.memory()`, `.disable()`, `.step(i)`.

    Raises ScheduleError if the schedule's sites are not the denoiser's, or it says that it was made for another one
    (and, when the pipeline runs, if its rows are not the run's steps); EcadError if the pipeline has no denoiser to
    cache. Warns (EcadWarning) of another variant, number of steps, sampler or resolution than it was made for.

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

    Arguments:
        pipe: what was given to `enable_cache`, or a pipeline that shares its denoiser.
    """
    for holder in (pipe, *denoisers(pipe).values()):
        run = vars(holder).get(_RUN)
        if run is not None:
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


class CacheRun:
    """The handle on an enabled cache; made by `enable_cache`.

    Attributes:
        stats: computed, reused and skipped calls and cached bytes since enabling.
        schedules: denoiser name -> schedule.
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
        self._pipe = pipe
        self._denoisers = [
            CachedDenoiser(name, modules[name], schedules[name], self.stats, storage) for name in schedules
        ]
        self._clock = StepClock(on_timesteps=self._timesteps_set, on_end=self._forget)
        self._watches: list[Any] = []
        self._last_step = -1
        self._refuse_unequal_schedules()

    @property
    def plans(self) -> dict[str, Plan]:
        """Denoiser name -> what a whole generation does at each step and site."""
        return {denoiser.name: denoiser.plan for denoiser in self._denoisers}

    def memory(self) -> int:
        """Predict the most bytes that kept outputs hold at any moment of a generation like the last one.

        Nothing is computed: shapes come from a copy of the denoiser without weights. Exact for a denoiser that runs in
        every row, as `stats.peak_cached_bytes` will tell; with several denoisers, never too little.

        Raises EcadError if no row has run yet, so that sizes are not known.
        """
        peaks = [peak for denoiser in self._denoisers if (peak := denoiser.memory()) is not None]
        if not peaks:
            raise EcadError("memory is not known before the first row: expected a pipeline that has run, found none")
        return sum(peaks)

    def __reduce__(self) -> Any:
        return type(None), ()  # a copy of an enabled pipeline is not enabled

    def disable(self) -> None:
        """Put pipeline, denoiser and scheduler back as they were; `stats` stays readable."""
        self._unwatch()
        self._clock.follow(None)
        for denoiser in self._denoisers:
            denoiser.detach()
        for holder in self._holders():
            if vars(holder).get(_RUN) is self:
                delattr(holder, _RUN)

    @contextmanager
    def step(self, index: int) -> Iterator[None]:
        """Say that the denoiser forwards within belong to one row, in a loop that is not a pipeline's.

        Row 0 begins a new generation. All passes of a row (guidance as two forwards) go into one `with`.

        Arguments:
            index: the row, 0 to the schedule's last.

        Raises ScheduleError if the schedule has no such row; EcadError if a row is entered twice in turn.
        """
        rows = self._num_steps()
        if not 0 <= index < rows:
            raise ScheduleError("the schedule has no such row", step=str(index), expected=f"0 to {rows - 1}")
        if index and index == self._last_step:
            raise EcadError(f"step {index} was entered twice in turn: expected all its passes inside one `with`")
        if index == 0 or index != self._last_step + 1:
            self._begin()
        self._last_step = index
        self._clock.pin(index)
        try:
            yield
        finally:
            self._clock.pin(None)
        if index == rows - 1:
            self._forget()

    def _attach(self) -> None:
        self._clock.follow(getattr(self._pipe, "scheduler", None))
        self._clock.stop()
        for denoiser in self._denoisers:
            denoiser.attach()
        self._watch()
        for holder in self._holders():
            setattr(holder, _RUN, self)

    def _watch(self) -> None:
        """Follow the denoisers' forwards from outside of what is compiled, whenever it was compiled."""
        self._unwatch()
        for denoiser in self._denoisers:
            called = self._pipe if isinstance(self._pipe, nn.Module) else getattr(self._pipe, denoiser.name)
            if called._compiled_call_impl is not None:
                self._watches.append(Around(called, "_compiled_call_impl", partial(self._around, denoiser)))
            elif called is not denoiser.module:
                self._watches.append(Around(called, "forward", partial(self._around, denoiser)))
            else:
                before, after = partial(self._before, denoiser), partial(self._after, denoiser)
                self._watches += [
                    called.register_forward_pre_hook(_Watch(before), with_kwargs=True),
                    called.register_forward_hook(_Watch(after)),
                ]

    def _unwatch(self) -> None:
        for watch in self._watches:
            watch.remove()
        self._watches = []

    def _holders(self) -> list[Any]:
        return [self._pipe, *(denoiser.module for denoiser in self._denoisers)]

    def _before(self, denoiser: CachedDenoiser, args: Any, kwargs: Any) -> None:
        clock = self._clock
        if clock.scheduler is not getattr(self._pipe, "scheduler", None):
            clock.follow(self._pipe.scheduler)
        if clock.starting:
            self._refuse_other_rows()
            self._begin()
            clock.start(getattr(self._pipe, "num_timesteps", None), kwargs.get("timestep"))
            check_run(denoiser.schedule, clock.scheduler, [*args, *kwargs.values()])
        if clock.step is None or torch.is_grad_enabled():
            denoiser.bypass()
        else:
            denoiser.prepare(clock.step, args, kwargs)

    def _after(self, denoiser: CachedDenoiser, *_: Any) -> None:
        denoiser.finish()

    def _around(self, denoiser: CachedDenoiser, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        self._before(denoiser, args, kwargs)
        result = denoiser.answer(forward, args, kwargs)
        self._after(denoiser)
        return result

    def _begin(self) -> None:
        for denoiser in self._denoisers:
            denoiser.forget()
            denoiser.attach()

    def _forget(self) -> None:
        self._last_step = -1
        for denoiser in self._denoisers:
            denoiser.forget()

    def _timesteps_set(self) -> None:
        self._refuse_replaced_denoiser()
        self._watch()
        # On a shared scheduler this may be another pipeline's generation; ours is checked when the denoiser runs.
        if not self._clock.is_shared:
            self._refuse_other_rows()

    def _refuse_replaced_denoiser(self) -> None:
        for denoiser in self._denoisers:
            if unwrapped(getattr(self._pipe, denoiser.name)) is not denoiser.module:
                self._clock.stop()
                raise EcadError(
                    f"the pipeline's {denoiser.name} was replaced after its cache was enabled; call enable_cache again"
                )

    def _refuse_other_rows(self) -> None:
        rows = self._clock.rows
        if rows != self._num_steps():
            self._clock.stop()
            name = next(iter(self.schedules.values())).name
            raise ScheduleError(
                f"schedule {name!r} does not fit this run",
                expected=f"{self._num_steps()} steps, the schedule's rows",
                found=f"{rows}",
                remedy=f"call the pipeline with {self._num_steps()} steps (a scheduler of second order runs 2n-1), or "
                f"use schedule.resample(steps={rows})",
            )

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


class _Watch:
    """A torch hook around a denoiser's forward, which offloading does not throw away. A copy of it does nothing."""

    def __init__(self, react: Callable[..., None] | None = None) -> None:
        self.react = react

    def __call__(self, module: nn.Module, *call: Any) -> None:
        if self.react is not None:
            self.react(*call)

    def __reduce__(self) -> Any:
        return _Watch, ()
