"""One denoiser under one schedule, forward by forward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any

import numpy as np
from torch import nn

from ecad.errors import EcadError
from ecad.runtime.caller import Site as CallSite
from ecad.runtime.compatibility import check_denoiser, check_run
from ecad.runtime.generation import Generation
from ecad.runtime.hooks import ComponentHook, Now
from ecad.runtime.inputs import Inputs, parameter_names
from ecad.runtime.kept_outputs import Storage, Tally
from ecad.runtime.overrides import Around, Override, override_of
from ecad.runtime.passes import Forward, Pass, PlanRows
from ecad.runtime.planned import PlannedSchedule, order_of
from ecad.runtime.replay.recordings import Recordings
from ecad.runtime.tgate import average, second_half, twice
from ecad.schedules import CacheSchedule
from ecad.sites.discovery import named_sites
from ecad.sites.readers import running_order


class CachedDenoiser:
    """Runs a denoiser's forwards under the schedule of the generation that they belong to.

    Args:
        name: what the pipeline calls it.
        module: the denoiser.
        schedule: the first one; must name exactly the denoiser's sites, in any order, or sites of its own by module
            path.
        who_calls: tells the generation that the forward which begins now belongs to, and from where it is called.
        tally: where its calls and bytes are counted.
        storage: how outputs are kept, if not as they are.
        fuse_rows: whether to compile the sums of rows that compute no component.

    Raises:
        ScheduleError: the schedule's sites are not the denoiser's.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        schedule: CacheSchedule,
        who_calls: Callable[[], tuple[Generation, CallSite] | None],
        tally: Tally,
        storage: Storage | None = None,
        fuse_rows: bool = False,
    ) -> None:
        self.name, self.module, self.schedule = name, module, schedule
        self._who_calls, self._tally, self._storage = who_calls, tally, storage
        self._sites = named_sites(module, schedule.sites)
        self._planned: dict[CacheSchedule, PlannedSchedule] = {}
        self._followed: set[CacheSchedule] = set()
        self._running_order = running_order([(site.block, site.component) for site in self._sites])
        self._parameters = parameter_names(module)
        self._recordings = Recordings(module, fuse_rows)
        # A denoiser that is one site itself has no component to hook into.
        self._is_whole = not self._sites[0].path
        # Sites whose outputs are changed in place: by the model, or by the pipeline.
        self._copied: set[int] = {0} if self._is_whole else set()
        # Of the passes of the last generation: their plans, and bytes by site.
        self._sizes: list[tuple[PlanRows, list[int]]] = []
        self._now = Now()
        self._hooks: list[ComponentHook] = []
        self._entry: Override | None = None
        self._below: Override | None = None
        self._context: Override | None = None
        # A compiled block does not know in which thread it runs, so that only one forward at a time may.
        self._is_compiled, self._turn = False, RLock()

    def planned(self, schedule: CacheSchedule) -> PlannedSchedule:
        """What a schedule means for this denoiser, compiled when it is met for the first time.

        Args:
            schedule: of the same sites as the first one.

        Raises:
            ScheduleError: of other sites.
        """
        if schedule not in self._planned:
            self._planned[schedule] = PlannedSchedule(schedule, self._sites, type(self.module).__name__)
        return self._planned[schedule]

    def follows(self, schedule: CacheSchedule) -> None:
        """Prepare for generations under a schedule; warns as `check_denoiser` does.

        Args:
            schedule: as for `planned`.

        Raises:
            ScheduleError: of other sites, or made for a denoiser of another layout.
        """
        self.planned(schedule)
        if schedule not in self._followed:
            check_denoiser(schedule, self.module, self._sites)
            self._followed.add(schedule)

    def memory(self) -> int | None:
        """Most bytes that are kept at any moment, in generations like the last one; None before any."""
        if not self._sizes:
            return None
        by_rows: dict[PlanRows, list[list[int]]] = {}
        for rows, sizes in self._sizes:
            by_rows.setdefault(rows, []).append(sizes)
        # Passes that begin together go on together; of one that begins later nobody knows when it ends.
        return sum(rows.plan.peak(np.array(of), self._running_order) for rows, of in by_rows.items())

    def attach(self, called: Any, of: object) -> None:
        """Put the hooks on top of whatever else wraps the denoiser and its components by now.

        Repeated before every generation, because offloading throws hooks away and adapters replace modules.

        Args:
            called: what the pipeline calls: the denoiser, or what `torch.compile` made of it.
            of: the run that the hooks belong to.
        """
        sites = named_sites(self.module, self.schedule.sites)
        order_of(self.schedule, sites, type(self.module).__name__)
        sites = [] if self._is_whole else sites
        mine = set(self._hooks)
        tops = [override_of(vars(site.module).get("forward")) for site in sites]
        for hook in mine.difference(tops):
            hook.remove()
        self._hooks = [
            top if isinstance(top, ComponentHook) and top in mine else ComponentHook(site.module, index, self._now)
            for index, (top, site) in enumerate(zip(tops, sites, strict=True))
        ]
        entered = called, "forward" if called._compiled_call_impl is None else "_compiled_call_impl"
        if self._entry is None or not self._entry.is_on_top or (self._entry.owner, self._entry.name) != entered:
            self._remove(self._entry)
            self._entry = Around(*entered, self._forward)
            self._entry.of = of
        if "_old_forward" in vars(called) and (self._below is None or not self._below.is_on_top):
            self._remove(self._below)
            self._below = Around(called, "_old_forward", self._put_back)
            self._below.of = of
        if self._context is None and hasattr(self.module, "cache_context"):
            self._context = Around(self.module, "cache_context", self._named)
        self._is_compiled = called is not self.module or any(
            part._compiled_call_impl is not None for part in self.module.modules()
        )

    def detach(self) -> None:
        """Take the hooks off and let go of the denoiser; what it has done is still known."""
        for hook in self._hooks:
            hook.remove()
        for override in (self._entry, self._below, self._context):
            self._remove(override)
        self._hooks, self._entry, self._below, self._context = [], None, None, None
        self.module = nn.Module()
        self._recordings = Recordings(self.module)

    def release(self) -> None:
        """Let go of weights that a recording has looked up, until they are looked up again."""
        self._recordings.release()

    def new_pass(self, planned: PlannedSchedule, row: int, identity: object, inputs: Inputs) -> Pass:
        """A pass that begins in a row.

        Args:
            planned: what its generation follows.
            row: of the schedule.
            identity, inputs: as for `Pass`.
        """
        rows = planned.rows(row)
        made = Pass(rows, row, identity, inputs, self._copied, self._tally, self._storage)
        self._sizes.append((rows, made.sizes))
        return made

    def rests(self, one: Pass, row: int) -> bool:
        """Whether the denoiser does not run in the next row of a pass.

        Args:
            one: the pass.
            row: its next one.
        """
        does = one.rows[row - one.first]
        if does.forecasts:
            return not does.runs and one.output.reaches(does.ahead)
        return self._is_whole and bool(does.reused) and one.has(0)

    def _forward(self, original: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """One forward of the denoiser: who calls, which row, which pass, what its plan says, and done."""
        called = self._who_calls()
        if called is None:
            return self._compute(None, original, args, kwargs)
        generation, site = called
        inputs = Inputs(self._parameters, args, kwargs)
        if generation.meets(self):
            self._sizes = []
            check_run(generation.planned(self).schedule, generation.scheduler, [*args, *kwargs.values()])
        row = generation.row_of(site, inputs)
        if row is None:
            return self._compute(None, original, args, kwargs)
        state = generation.pass_of(self, row, site, self._now.context, inputs)
        forward = Forward(state, row)
        try:
            result = forward.forecast()
            if result is None:
                if row in generation.left_out and not self.rests(state, row):
                    raise EcadError(
                        f"{self.name} has to run in row {row} of a pass that begins there, after a network beside it "
                        "was left out: ecad cannot run this pipeline with its ControlNet; please report it"
                    )
                planned = generation.planned(self)
                result = forward.computed(self._halved_or_whole(planned, forward, original, inputs))
        except BaseException:
            generation.drop(self, state)
            raise
        forward.end()
        return result

    def _halved_or_whole(
        self, planned: PlannedSchedule, forward: Forward, original: Callable[..., Any], inputs: Inputs
    ) -> Any:
        """Run a forward, of half a batch where TGATE has made both halves the same."""
        state, gate = forward.of, planned.one_half_from
        one_half = gate is not None and state.first < gate <= forward.row and self._is_alone
        if forward.row in planned.gates:
            kept = [kept for site in planned.gates[forward.row] for kept in state.all_kept(site)]
            average(kept, inputs.leaves[0].value, one_half)
        if not one_half:
            return self._run(forward, original, inputs)
        half = Inputs(self._parameters, *second_half((inputs.args, inputs.kwargs)))
        return twice(self._run(forward, original, half))

    def _run(self, forward: Forward, original: Callable[..., Any], inputs: Inputs) -> Any:
        """Run a forward as it is, or what its row leaves of a recording of it."""

        def run(*args: Any, **kwargs: Any) -> Any:
            return self._compute(None if self._is_whole else forward, original, args, kwargs)

        if self._is_whole:
            return forward.call(0, run, inputs.args, inputs.kwargs)
        # What is never replayed is not worth recording: a generation that computes everything, or skips whole forwards.
        records = forward.is_first and forward.of.rows.keeps
        if self._is_compiled or (forward.computes_all and not records):
            return run(*inputs.args, **inputs.kwargs)
        if records:
            components = [hook.owner for hook in self._hooks]
            return self._recordings.record(run, inputs, forward, components, self._is_alone)
        program = self._recordings.program(inputs, forward.actions)
        # A block that was left out so far has nothing to give, and computes.
        kept = None if program is None else forward.get_all(program.reads)
        if program is None or kept is None:
            return run(*inputs.args, **inputs.kwargs)
        forward.is_seen = False
        return self._compute(forward, program.run, (forward, kept, inputs.tensors), {})

    def _compute(self, forward: Forward | None, run: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Call something that runs components, which do as a forward says; without one they compute."""
        before, self._now.forward = self._now.forward, forward
        try:
            if not self._is_compiled:
                return run(*args, **kwargs)
            with self._turn:
                return self._compute_compiled(forward, run, args, kwargs)
        finally:
            self._now.forward = before

    def _compute_compiled(self, forward: Forward | None, run: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        hooks = self._hooks
        try:
            if forward is not None:
                forward.instruct(hooks)
            result = run(*args, **kwargs)
            if forward is not None:
                forward.collect(hooks)
            return result
        finally:
            for hook in hooks:
                hook.rest()

    @property
    def _is_alone(self) -> bool:
        """Whether nobody else stands in for the denoiser's forward: what another does may be more than its own."""
        entry = self._entry
        below = vars(self.module).get("forward")
        return below is None or (entry is not None and below is entry.method and entry.previous is None)

    @contextmanager
    def _named(self, original: Callable[..., Any], args: Any, kwargs: Any) -> Iterator[None]:
        """Diffusers says which pass is running."""
        before, self._now.context = self._now.context, args[0] if args else kwargs["name"]
        try:
            with original(*args, **kwargs):
                yield
        finally:
            self._now.context = before

    def _put_back(self, original: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Accelerate calls what it remembers of a forward below its own hook, or has put it back in its place."""
        if self._entry is not None and self._entry.is_on_top:
            return original(*args, **kwargs)
        return self._forward(original, args, kwargs)

    def _remove(self, override: Override | None) -> None:
        if override is not None:
            override.remove()
