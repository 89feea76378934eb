"""The handle on an enabled cache: which generation a forward belongs to, and which schedules it follows."""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ecad.errors import EcadError, EcadWarning, ScheduleError
from ecad.runtime.beside import NetworksBeside
from ecad.runtime.caller import Scope, Site, calls_method_of, running
from ecad.runtime.compatibility import is_resampled, other_cache, other_rows, rows_of_run
from ecad.runtime.denoiser import CachedDenoiser
from ecad.runtime.engines import Engines
from ecad.runtime.generation import Generation
from ecad.runtime.kept_outputs import CacheStats, Storage, Tally
from ecad.runtime.rows import GivenRow, SchedulerWatch
from ecad.schedules import CacheSchedule
from ecad.schedules.front import Front
from ecad.schedules.joint import by_denoiser
from ecad.schedules.plan import Plan
from ecad.sites.discovery import denoisers

NO_FRONT = "speedup and quality choose a schedule of a front: give enable_cache a front"


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
        schedules: denoiser name -> schedule; empty while it is switched off.
        pipe: what it is enabled on; None once it is disabled.
    """

    def __init__(
        self,
        pipe: Any,
        found: Mapping[str, Any],
        schedules: Mapping[str, CacheSchedule],
        front: Front | None,
        exact: bool,
        storage: Storage | None,
        fuse_rows: bool,
    ) -> None:
        self.stats = CacheStats()
        self.schedules: dict[str, CacheSchedule] = {}
        self.pipe = pipe
        tally, self._engines = Tally(self.stats), Engines(found)
        self._denoisers = [
            CachedDenoiser(name, module, schedules[name], self._who_calls, tally, storage, fuse_rows)
            for name, module in self._engines.modules.items()
        ]
        self._front, self._exact = front, exact
        self._resampled: dict[tuple[CacheSchedule, int], CacheSchedule] = {}
        self._beside = NetworksBeside(self._generation_that_calls)
        self._watch = SchedulerWatch(self._timesteps_set)
        self._generation: Generation | None = None
        self._unchecked: Generation | None = None
        self._loop = _Loop()
        self._running: list[Generation] = []
        self._told: set[str] = set()
        self._follow(schedules)
        named = {denoiser.name: denoiser for denoiser in self._denoisers}
        for point in front.points if front else ():
            for name, own in self._by_denoiser(point.choice).items():
                named[name].planned(own)

    @property
    def plans(self) -> dict[str, Plan]:
        """Denoiser name -> what a whole generation does at each step and site; empty while switched off."""
        named = {denoiser.name: denoiser for denoiser in self._denoisers}
        return {name: named[name].planned(schedule).rows(0).plan for name, schedule in self.schedules.items()}

    def switch(
        self,
        schedule: CacheSchedule | Mapping[str, CacheSchedule] | None = None,
        *,
        speedup: float | None = None,
        quality: float | None = None,
    ) -> None:
        """Run the generations that begin from now on under another schedule, or uncached if no argument is given.

        Nothing is hooked or recorded again. A generation that is running goes on as it began.

        Args:
            schedule: of the same sites; where the pipeline has several denoisers as for `enable_cache`.
            speedup, quality: which schedule of the front that the cache was enabled with; as for `Front.pick`.

        Raises:
            ScheduleError: the schedule has other sites, or says that it was made for another denoiser.
            EcadError: there is no front or it has no such schedule, the schedules are not for the cached denoisers, or
                the cache was disabled.
        """
        if self.pipe is None:
            raise EcadError("this cache was disabled and cannot be switched: call enable_cache again")
        if speedup is not None or quality is not None:
            if self._front is None or schedule is not None:
                raise EcadError(NO_FRONT)
            schedule = self._front.point(speedup=speedup, quality=quality).choice
        if schedule is None:
            self.schedules = {}
        else:
            self._follow(self._by_denoiser(schedule))

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
        self._beside.detach()
        for denoiser in self._denoisers:
            denoiser.detach()
        self._engines.detach(self.pipe)
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
        loop = self._loop
        generation = loop.generation
        goes_on = generation is not None and not generation.is_over and index == loop.last + 1 > 0
        schedules = generation.schedules if generation is not None and goes_on else self.schedules
        if not schedules:
            if generation is not None:
                generation.end()
            yield
            return
        rows = _num_steps(schedules)
        if not 0 <= index < rows:
            raise ScheduleError("the schedule has no such row", step=str(index), expected=f"0 to {rows - 1}")
        if index and index == loop.last:
            raise EcadError(f"step {index} was entered twice in turn: expected all its passes inside one `with`")
        if generation is None or not goes_on:
            self._end_generation()
            if generation is not None:
                generation.end()
            generation = loop.generation = self._begin(Generation(GivenRow(), schedules, self._ended))
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

    def attach(self) -> None:
        """Put the hooks on the pipeline."""
        self._warn_of_others()
        self._watch.follow(getattr(self.pipe, "scheduler", None), self)
        self._engines.attach(self.pipe)
        self._attach_to_parts()

    def _attach_to_parts(self) -> None:
        for denoiser in self._denoisers:
            denoiser.attach(self._called(denoiser), self)
        self._beside.attach(self.pipe, self)

    def _generation_that_calls(self) -> Generation | None:
        generation = self._loop.inside or self._generation
        return None if generation is None or generation.is_over or generation.site() is None else generation

    def _called(self, denoiser: CachedDenoiser) -> Any:
        """What the pipeline calls."""
        return self.pipe if isinstance(self.pipe, nn.Module) else self._engines.called(self.pipe, denoiser.name)

    def _who_calls(self) -> tuple[Generation, Site] | None:
        """The generation that the forward which begins now belongs to, and from where in it it is called."""
        generation = self._loop.inside or self._generation_of_scheduler()
        site = None if generation is None else generation.site()
        if generation is None or site is None:
            return None
        if torch.is_grad_enabled():
            self._tell("gradients are enabled, so that nothing is cached: call the denoiser under torch.no_grad()")
            return None
        if generation is self._unchecked:
            self._fit(generation)
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
        if self._exact and self.schedules:
            rows = self._other_rows(_num_steps(self.schedules), has_begun=False)
            if rows is not None and not self._watch.is_shared and not calls_method_of(self._is_another_pipeline):
                raise self._refuse(rows)

    def _follow_timesteps(self, begun: Sequence[weakref.ref[Scope]]) -> None:
        self._end_generation()
        if not self.schedules:
            return
        rows = self._watch.begin(lambda: getattr(self.pipe, "num_timesteps", None))
        made = Generation(rows, self.schedules, self._ended, begun)
        self._generation = self._unchecked = self._begin(made)

    def _is_another_pipeline(self, one: object) -> bool:
        scheduler = self._watch.scheduler
        return one is not self.pipe and one is not scheduler and getattr(one, "scheduler", None) is scheduler

    def _begin(self, generation: Generation) -> Generation:
        self._warn_of_others()
        self._attach_to_parts()
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
            if not self._engines.is_in(self.pipe, denoiser.name):
                self._generation = None
                raise EcadError(
                    f"the pipeline's {denoiser.name} was replaced after its cache was enabled; call enable_cache again"
                )

    def _fit(self, generation: Generation) -> None:
        """Have a generation whose denoiser is about to run follow schedules of as many rows as it has."""
        rows = self._other_rows(generation.num_steps, has_begun=True)
        if rows is None:
            return
        if self._exact:
            raise self._refuse(rows)
        for schedule in generation.schedules.values():
            if (schedule, rows) not in self._resampled:
                self._resampled[schedule, rows] = schedule.resample(rows)
                self._tell(is_resampled(schedule, rows))
        generation.schedules = {name: self._resampled[one, rows] for name, one in generation.schedules.items()}

    def _other_rows(self, steps: int, has_begun: bool) -> int | None:
        """How many rows the scheduler's generation has, as far as is known; None if as many as the schedules."""
        rows = rows_of_run(self.pipe, steps, has_begun)
        return None if rows == steps else rows

    def _refuse(self, rows: int) -> ScheduleError:
        self._end_generation()
        return other_rows(next(iter(self.schedules.values())), self._watch.scheduler, rows)

    def _end_generation(self) -> None:
        if self._generation is not None:
            self._generation.end()

    def _by_denoiser(self, schedule: CacheSchedule | Mapping[str, CacheSchedule]) -> dict[str, CacheSchedule]:
        cached = {denoiser.name for denoiser in self._denoisers}
        names = [name for name in denoisers(self.pipe) if name in cached]
        return dict(schedule) if isinstance(schedule, Mapping) else by_denoiser(schedule, names)

    def _follow(self, schedules: Mapping[str, CacheSchedule]) -> None:
        """Take schedules for the generations that begin from now on."""
        rows = {name: schedule.num_steps for name, schedule in schedules.items()}
        if len(set(rows.values())) != 1:
            raise ScheduleError(
                "the schedules of one pipeline share its clock",
                expected="one denoiser at least, and equally many rows for each",
                found=", ".join(f"{name} {count}" for name, count in rows.items()) or "no schedule",
            )
        names = [denoiser.name for denoiser in self._denoisers]
        if sorted(schedules) != sorted(names):
            raise EcadError(f"expected schedules for {', '.join(names)}, found some for {', '.join(schedules)}")
        for denoiser in self._denoisers:
            denoiser.follows(schedules[denoiser.name])
        self.schedules = dict(schedules)


def _num_steps(schedules: Mapping[str, CacheSchedule]) -> int:
    return next(iter(schedules.values())).num_steps
