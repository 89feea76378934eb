"""One generation: the denoising loop of one call, whose rows it tells and whose kept outputs it owns."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from ecad.errors import EcadError
from ecad.runtime.caller import Scope, Site, call_site, innermost
from ecad.runtime.inputs import Inputs
from ecad.runtime.passes import Pass
from ecad.runtime.rows import GivenRow, Numbers, SchedulerRows

if TYPE_CHECKING:
    from ecad.runtime.denoiser import CachedDenoiser
    from ecad.runtime.planned import PlannedSchedule
    from ecad.schedules import CacheSchedule

# As many unknown timesteps in one row that never ends are not those of a sampler of higher order.
_MAX_UNKNOWN_TIMES = 2


class Generation:
    """A denoising loop that is running.

    Args:
        rows: tells the row of a forward.
        schedules: denoiser name -> schedule that it follows; equally many rows in each.
        on_end: called with this generation when it is over.
        begun: what was running when it began, if the rows are a scheduler's.

    Attributes:
        schedules: may be replaced until the denoiser runs.
        scheduler: whose rows they are, if they are a scheduler's.
        left_out: rows in which a network beside the denoiser was left out.
    """

    def __init__(
        self,
        rows: SchedulerRows | GivenRow,
        schedules: Mapping[str, CacheSchedule],
        on_end: Callable[[Generation], None],
        begun: Sequence[weakref.ref[Scope]] = (),
    ) -> None:
        self.rows, self.is_over = rows, False
        self.scheduler = rows.scheduler if isinstance(rows, SchedulerRows) else None
        self.schedules, self._on_end = schedules, on_end
        self.left_out: set[int] = set()
        self._begun = begun
        self._scope: weakref.ref[Scope] | None = None
        self._passes: dict[CachedDenoiser, list[Pass]] = {}
        self._planned: dict[CachedDenoiser, PlannedSchedule] = {}
        self._sites: list[Site] = []  # to hash code takes longer than to compare a few
        self._unknown_times: set[Numbers] = set()

    @property
    def num_steps(self) -> int:
        """Rows of its schedules."""
        return next(iter(self.schedules.values())).num_steps

    def site(self) -> Site | None:
        """From where in this generation the denoiser is called; None if it is not called from this generation."""
        if isinstance(self.rows, GivenRow):
            return ()
        if self._scope is None:
            scope = innermost(self._begun)
            if scope is None:
                return None
            self._scope = weakref.ref(scope)
            scope.at_end.append(self.end)
        else:
            scope = self._scope()
        return None if scope is None else call_site(scope)

    def meets(self, denoiser: CachedDenoiser) -> bool:
        """Whether this is the denoiser's first forward in this generation."""
        if denoiser in self._passes:
            return False
        self._passes[denoiser] = []
        self._planned[denoiser] = denoiser.planned(self.schedules[denoiser.name])
        return True

    def planned(self, denoiser: CachedDenoiser) -> PlannedSchedule:
        """What a denoiser that was met does in this generation."""
        return self._planned[denoiser]

    def row_of(self, site: Site, inputs: Inputs) -> int | None:
        """The row of a forward; None if it belongs to none.

        Args:
            site: from where it is called.
            inputs: that it is given.

        Raises:
            EcadError: rows cannot be told, since the scheduler does not move although the loop does.
        """
        is_known = site in self._sites
        row = self.rows.row_of(inputs.time, is_known)
        if row is not None and row < self.num_steps:
            if not is_known:
                self._sites.append(site)
            return row
        if row is None and inputs.time is not None and is_known and not self._moves():
            self._unknown_times.add(inputs.time.numbers)
            if len(self._unknown_times) >= min(_MAX_UNKNOWN_TIMES, self.num_steps - 1):
                raise EcadError(
                    "the pipeline's scheduler stands still while its timesteps change, so that rows cannot be told "
                    "apart: step pipe.scheduler, or enable the cache on the denoiser and say `with run.step(i)`"
                )
        return None

    def pass_of(self, denoiser: CachedDenoiser, row: int, site: Site, context: str | None, inputs: Inputs) -> Pass:
        """The pass that a forward goes on with; a new one if there is none.

        Args:
            denoiser: that runs.
            row: in which it does.
            site: from where it is called.
            context: what diffusers calls the pass, if it says so.
            inputs: that it is given.
        """
        passes = self._passes[denoiser]
        for stale in [one for one in passes if one.next < row]:
            self.drop(denoiser, stale)
        identity = (site, context, inputs.shapes)
        going_on = [one for one in passes if (one.next, one.identity) == (row, identity)]
        if context is not None and len(going_on) == 1:
            return going_on[0]
        alike: list[tuple[int, int, list[bool], Pass]] = []
        for in_content in (
            False,
            True,
        ):  # the second is more expensive, and needed if tensors are made anew in each row
            if len(alike) != 1:
                matches = [(one, one.matches(inputs, in_content)) for one in going_on]
                alike = [
                    (sum(same), -place, same, one) for place, (one, same) in enumerate(matches) if same is not None
                ]
        if not alike:
            passes.append(denoiser.new_pass(self._planned[denoiser], row, identity, inputs))
            return passes[-1]
        *_, same, best = max(alike)  # the first of several
        best.continues(inputs, same)
        return best

    def rests(self, row: int) -> bool:
        """Whether no denoiser runs in a row in which all passes go on that are about to; False if none is."""
        about = [(denoiser, one) for denoiser, passes in self._passes.items() for one in passes if one.next == row]
        return bool(about) and all(denoiser.rests(one, row) for denoiser, one in about)

    def drop(self, denoiser: CachedDenoiser, one: Pass) -> None:
        """Forget a pass, which cannot go on."""
        one.free()
        if one in self._passes.get(denoiser, ()):
            self._passes[denoiser].remove(one)

    def end(self) -> None:
        """Free all that is kept; whoever runs the denoiser from now on does so outside of this generation."""
        if self.is_over:
            return
        self.is_over = True
        scope = None if self._scope is None else self._scope()
        if scope is not None:
            scope.at_end.remove(self.end)
        for passes in self._passes.values():
            for one in passes:
                one.free()
        self._passes = {}
        self._on_end(self)

    def _moves(self) -> bool:
        return not isinstance(self.rows, SchedulerRows) or self.rows.has_moved
