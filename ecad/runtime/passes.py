"""One pass of a denoiser, row after row, and what its components do in each of its forwards.

A pass is one forward of every row: guidance takes one with the prompt and one without it, and each reuses what it
computed itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ecad.runtime.denoiser_output import Output
from ecad.runtime.hooks import ComponentHook, empty_output
from ecad.runtime.inputs import Inputs, is_of_prompt, unchanged
from ecad.runtime.kept_outputs import AS_IT_IS, Kept, Line, Storage, Tally, size_if_kept
from ecad.schedules.forecast import Ahead
from ecad.schedules.plan import Action, Plan

if TYPE_CHECKING:
    from ecad.runtime.replay.trace import Recorder

# Globals are looked up faster than members of an enum.
_ACTIONS = tuple(Action)
_COMPUTE, _KEEP, _REUSE, _FREE, _SKIP = _ACTIONS
_REUSES = frozenset((_REUSE, _FREE))


class PlanRow:
    """What every site, and the denoiser itself, does in one row of a plan.

    Args:
        plan: of any rows.
        step: which of them.
        ahead: what is made of the denoiser's outputs in this row.

    Attributes:
        actions: of each site.
        computed, reused, skipped: the sites that do so.
        dropped, released: the sites of whose outputs nothing is needed after this row, and nothing before the next one.
        forecasts: whether the schedule does.
        runs: whether the denoiser runs.
        held: how many of its outputs, the newest ones, later rows need.
    """

    def __init__(self, plan: Plan, step: int, ahead: Ahead) -> None:
        of_sites = plan.actions[step, : plan.num_sites].tolist()
        self.actions = [_ACTIONS[action] for action in of_sites]
        sites: dict[int, list[int]] = {action: [] for action in _ACTIONS}
        for site, action in enumerate(of_sites):
            sites[action].append(site)
        self.computed, self.reused = sites[_COMPUTE] + sites[_KEEP], sites[_REUSE] + sites[_FREE]
        self.skipped, self.dropped, self.released = sites[_SKIP], sites[_COMPUTE], sites[_FREE]
        self._plan, self._step, self.ahead, self.forecasts = plan, step, ahead, plan.forecasts
        self.runs, self.held = True, 0
        if self.forecasts:
            self.runs, self.held = bool(plan.actions[step, -1] <= _KEEP), int(plan.held[step, -1])

    def line(self, site: int) -> Line:
        """What becomes of an output that a site has just computed."""
        if not self.forecasts:
            return AS_IT_IS
        tables = self._plan.gaps, self._plan.remembered, self._plan.reused
        gap, remembered, reused = (table[self._step, site].item() for table in tables)
        return Line(gap, remembered, reused)


class PlanRows:
    """A plan from some row on; each row is looked at when it is met for the first time.

    Args:
        plan: from that row on.
        ahead: what `forecasts` gives, from there.

    Attributes:
        keeps: whether the output of any component is kept in any row.
    """

    def __init__(self, plan: Plan, ahead: Sequence[Ahead]) -> None:
        self.plan, self._ahead = plan, ahead
        self.keeps = bool((plan.actions[:, : plan.num_sites] == _KEEP).any())
        self._rows: dict[int, PlanRow] = {}

    def __getitem__(self, step: int) -> PlanRow:
        if step not in self._rows:
            self._rows[step] = PlanRow(self.plan, step, self._ahead[step])
        return self._rows[step]


class Pass:
    """What one pass keeps from row to row, and what tells its next forward from others.

    Args:
        rows: the plan from the row in which it begins.
        first: that row.
        identity: where its forwards are called from and what tensors they are given; the same in all of them.
        inputs: of its first forward.
        copied: sites whose outputs the model changes in place; added to.
        tally, storage: of what it keeps.

    Attributes:
        next: the only row that it can go on in.
        calls, sizes: of each site, calls and bytes of all their outputs in the first row.
    """

    def __init__(
        self,
        rows: PlanRows,
        first: int,
        identity: object,
        inputs: Inputs,
        copied: set[int],
        tally: Tally,
        storage: Storage | None,
    ) -> None:
        self.rows, self.first, self.next, self.identity = rows, first, first, identity
        self.copied, self.tally, self.storage = copied, tally, storage
        self.calls = [0] * rows.plan.num_sites
        self.sizes = [0] * (rows.plan.num_sites + 1)
        self.output = Output(tally, storage)
        self._kept: list[list[Kept]] = [[] for _ in self.calls]
        self._others = inputs.others
        self._compared, self._steady = [True] * len(inputs.others), [is_of_prompt(leaf) for leaf in inputs.others]

    def matches(self, inputs: Inputs, in_content: bool) -> list[bool] | None:
        """Which parts of a forward's conditioning are as in the last forward of this pass; None: it is of another pass.

        What comes from the prompt has to be the same, and so has all that was the same from one row to the next before.

        Args:
            inputs: of the forward.
            in_content: whether another tensor of the same numbers is the same.
        """
        same = unchanged(self._others, inputs.others, self._compared, in_content)
        if same is None or any(must and not is_so for must, is_so in zip(self._steady, same, strict=True)):
            return None
        return same

    def continues(self, inputs: Inputs, same: list[bool]) -> None:
        """Note that a forward is the next one of this pass.

        Args:
            inputs: of the forward.
            same: which parts of its conditioning are unchanged, as `matches` says.
        """
        self._others, self._compared, self._steady = inputs.others, same, same

    def kept(self, site: int, number: int) -> Kept:
        """Where the output of one call of a site is kept.

        Args:
            site: its place among the denoiser's sites.
            number: calls of this component in this forward before it.
        """
        of_site = self._kept[site]
        while number >= len(of_site):
            of_site.append(Kept(self.tally, self.storage, site in self.copied))
        return of_site[number]

    def has(self, site: int) -> bool:
        """Whether there is something to reuse at a site."""
        return bool(self._kept[site]) and self._kept[site][0].is_there

    def fetch(self) -> None:
        """Begin to bring back what the next row reuses, where outputs are kept on another device."""
        row = self.next - self.first
        if self.storage is None or self.storage.device is None or row >= len(self.rows.plan.actions):
            return
        does = self.rows[row]
        for site in does.reused if does.runs else ():
            for kept in self._kept[site]:
                kept.fetch()

    def all_kept(self, site: int) -> list[Kept]:
        """Of a site, for all its calls in a forward."""
        return self._kept[site]

    def free(self) -> None:
        """Forget every kept output."""
        for of_site in self._kept:
            for kept in of_site:
                kept.free()
        self._kept = [[] for _ in self.calls]
        self.output.free()
        self._others = []


class Forward:
    """One forward of a denoiser under a plan.

    Args:
        of: its pass.
        row: of the schedule.

    Attributes:
        does: what its row of the plan says.
        actions: of each site.
        recorder: watches this forward, if it is the first of its kind.
        is_seen: whether every call of a component asks what to do; those of compiled blocks and replays do not.
    """

    def __init__(self, of: Pass, row: int) -> None:
        self.of, self.row = of, row
        self.is_first = row == of.first
        self.does = of.rows[row - of.first]
        self.actions = self.does.actions
        self.recorder: Recorder | None = None
        self.is_seen = True
        self._numbers = [0] * len(self.actions)

    @property
    def computes_all(self) -> bool:
        """Whether every component runs."""
        return len(self.does.computed) == len(self.actions)

    def forecast(self) -> Any:
        """What stands for the denoiser's own output; None if it has to run."""
        if self.does.runs:
            return None
        result = self.of.output.forecast(self.does.ahead, self.does.held)
        self.is_seen = result is None
        return result

    def computed(self, result: Any) -> Any:
        """What is given for what the denoiser has returned.

        Args:
            result: as it was returned.
        """
        does = self.does
        if not does.forecasts:
            return result
        result, size = self.of.output.computed(result, does.ahead if does.runs else Ahead(), does.held)
        self.of.sizes[-1] = max(self.of.sizes[-1], size)
        return result

    def call(self, site: int, compute: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """What one call of a component returns.

        Args:
            site: its place among the denoiser's sites.
            compute: the component's own forward.
            args, kwargs: that it is called with.
        """
        action, number = self.actions[site], self._numbers[site]
        self._numbers[site] += 1
        if action is _SKIP:
            return empty_output(*args, **kwargs)
        if action in _REUSES and (output := self.take(site, number)) is not None:
            return output

        def computed() -> Any:
            output = compute(*args, **kwargs)
            self._computed(site, number, output)
            return output

        if self.recorder is None:
            return computed()
        # How an output is kept is no part of the forward, as little as how it is computed.
        return self.recorder.component(site, number, computed, args, kwargs)

    def take(self, site: int, number: int = 0) -> Any:
        """What is kept for a call of a component; None if there is nothing."""
        kept = self.of.kept(site, number)
        output = kept.get()
        if self.actions[site] is _FREE:
            kept.release()
        return output

    def get_all(self, sites: Sequence[int]) -> dict[int, Any] | None:
        """What is kept for the first call of each of some sites; None if one of them lacks it."""
        outputs, kept_of = {}, self.of.all_kept
        for site in sites:
            kept = kept_of(site)
            if not kept or (output := kept[0].get()) is None:
                return None
            outputs[site] = output
        return outputs

    def release(self, site: int) -> None:
        """Let go of what is kept for the first call of a site."""
        self.of.kept(site, 0).release()

    def own(self, site: int, number: int, backup: Any = None) -> None:
        """Note that the model changes an output in place.

        Args:
            site, number: whose output it is.
            backup: of what is kept of it, from before the change; None if that is about to come.
        """
        self.of.copied.add(site)
        self.of.kept(site, number).own(backup)

    def backup(self, site: int, number: int) -> Any:
        """A copy of what is kept of an output."""
        return self.of.kept(site, number).backup()

    def instruct(self, hooks: Sequence[ComponentHook]) -> None:
        """Tell compiled components what to do."""
        self.is_seen = False
        for hook, action in zip(hooks, self.actions, strict=True):
            hook.rest()
            hook.skips = action is _SKIP
            if action in _REUSES:
                hook.given = [output for kept in self.of.all_kept(hook.site) if (output := kept.get()) is not None]
                hook.reuses = bool(hook.given)

    def collect(self, hooks: Sequence[ComponentHook]) -> None:
        """Take what compiled components have computed."""
        for hook in hooks:
            for output in hook.taken:
                number = self._numbers[hook.site]
                self._numbers[hook.site] += 1
                self._computed(hook.site, number, output)
            hook.rest()

    def end(self) -> None:
        """Count the calls of a forward that has run to its end, and let go of what was reused for the last time."""
        of, does = self.of, self.does
        if self.is_first:
            of.calls = self._numbers
        calls = self._numbers if self.is_seen else of.calls
        of.tally.called(*(sum([calls[site] for site in sites]) for sites in (does.computed, does.reused, does.skipped)))
        for site in does.dropped:
            for kept in of.all_kept(site):
                kept.free()
        for site in does.released:
            for kept in of.all_kept(site):
                kept.release()
        of.next = self.row + 1
        of.fetch()

    def _computed(self, site: int, number: int, output: Any) -> None:
        if self.is_first:
            self.of.sizes[site] += size_if_kept(output, self.of.storage)
        if self.actions[site] in (_KEEP, _REUSE):
            self.of.kept(site, number).keep(output, self.does.line(site))
