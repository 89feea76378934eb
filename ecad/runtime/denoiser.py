"""One denoiser under one schedule: its sites, its hooks, and the state of each of its passes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from ecad.errors import ScheduleError
from ecad.runtime.compatibility import check_denoiser
from ecad.runtime.denoiser_output import Output
from ecad.runtime.hooks import ComponentHook
from ecad.runtime.kept_outputs import CacheStats, Kept, Line, Storage, tensors_in
from ecad.runtime.output_sizes import as_meta, on_meta, output_sizes
from ecad.runtime.overrides import override_of
from ecad.runtime.replay.forward import Replay
from ecad.runtime.tgate import average, gates_of, one_half_from
from ecad.schedules import CacheSchedule
from ecad.schedules.forecast import Ahead, forecasts
from ecad.schedules.plan import Action, Plan, executed, make_plan
from ecad.sites.discovery import Site, named_sites
from ecad.sites.readers import readers, running_order

_ACTIONS = tuple(Action)


class _Rows:
    """A plan from some step on, in the form in which it is replayed; `ahead` has what `forecasts` gives, from there."""

    def __init__(self, plan: Plan, ahead: list[Ahead]) -> None:
        self.plan = plan
        actions = [[_ACTIONS[action] for action in row] for row in plan.actions.tolist()]
        self.actions = [row[: plan.num_sites] for row in actions]
        self.counts = plan.counts().tolist()
        # By step and site, and of the denoiser's output by step; empty unless the schedule forecasts.
        self.lines: list[list[Line]] = []
        self.outputs: list[tuple[bool, Ahead, int]] = []
        if plan.forecasts:
            tables = plan.gaps.tolist(), plan.remembered.tolist(), plan.reused.tolist()
            self.lines = [list(map(Line, *rows))[: plan.num_sites] for rows in zip(*tables, strict=True)]
            runs = [row[-1] in (Action.COMPUTE, Action.KEEP) for row in actions]
            self.outputs = list(zip(runs, ahead, plan.held[:, -1].tolist(), strict=True))


class _Pass:
    """The state of one forward of every step (of two, if guidance takes two), from the step it first ran in."""

    def __init__(self, rows: _Rows, step: int, inputs: object, kept: list[Kept], output: Output) -> None:
        self.rows, self.first, self.inputs, self.kept, self.output = rows, step, inputs, kept, output
        self.next = step

    def free(self) -> None:
        """Forget every kept output."""
        for kept in self.kept:
            kept.free()
        self.output.free()


class CachedDenoiser:
    """Runs a denoiser's forwards under a schedule.

    Arguments:
        name: what the pipeline calls it.
        module: the denoiser.
        schedule: must name exactly the denoiser's sites, in any order, or sites of its own by module path.
        stats: where its calls and bytes are counted.
        storage: how outputs are kept, if not as they are.

    Raises ScheduleError if the schedule's sites are not the denoiser's.
    """

    def __init__(
        self, name: str, module: nn.Module, schedule: CacheSchedule, stats: CacheStats, storage: Storage | None = None
    ) -> None:
        self.name, self.module, self.schedule, self.stats, self._storage = name, module, schedule, stats, storage
        sites = named_sites(module, schedule.sites)
        index = {(site.block, site.component): position for position, site in enumerate(sites)}
        gates = gates_of(schedule)
        self._gates = {step: {index[site] for site in gated} for step, gated in gates.items()}
        self._one_half_from = one_half_from(schedule, gates)
        # Passes that have run: their arguments on the meta device.
        self._seen: dict[int, Any] = {}
        self._order = _match(schedule, sites, type(module).__name__)
        check_denoiser(schedule, module, sites)
        self._readers = readers([(site.block, site.component) for site in sites])
        self._rows_from: dict[int, _Rows] = {}
        self._hooks: list[ComponentHook] = []
        self._forward: Replay | None = None
        self._passes: list[_Pass] = []
        self._step: int | None = None
        self._index = 0
        self._running: _Pass | None = None
        self._output: Output | None = None
        self._rows(0)  # not while somebody waits for the first image

    @property
    def plan(self) -> Plan:
        """What a whole generation does, sites in the denoiser's order."""
        return self._rows(0).plan

    def memory(self) -> int | None:
        """Most bytes that this schedule keeps at any moment, in generations like the last one; None before any."""
        if not self._seen:
            return None
        twin = on_meta(self.module)
        sites = named_sites(twin, self.schedule.sites)
        passes = [self._seen[index] for index in sorted(self._seen)]
        sizes = np.stack([output_sizes(twin, sites, args, kwargs, self._storage) for args, kwargs in passes])
        return self.plan.peak(sizes, running_order([(site.block, site.component) for site in sites]))

    def attach(self) -> None:
        """Put the hooks on top of whatever else wraps the components by now.

        Repeated before every generation, because offloading throws hooks away and adapters replace modules.
        """
        sites = named_sites(self.module, self.schedule.sites)
        self._order = _match(self.schedule, sites, type(self.module).__name__)
        mine = set(self._hooks)
        tops = [override_of(vars(site.module).get("forward")) for site in sites]
        for hook in mine.difference(tops):
            hook.remove()
        kept = Kept(self.stats)
        self._hooks = [
            top if isinstance(top, ComponentHook) and top in mine else ComponentHook(site.module, kept)
            for top, site in zip(tops, sites, strict=True)
        ]
        if self._forward is None or vars(self.module).get("forward") is not self._forward.method:
            self._release_forward()
            self._forward = Replay(self.module, self.answer)
        self._forward.follow(self._hooks)

    def detach(self) -> None:
        """Take the hooks off and drop all state."""
        self.forget()
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self._release_forward()

    def forget(self) -> None:
        """Drop every kept output: the next forward is the first of its pass."""
        for state in self._passes:
            state.free()
        self._passes = []
        self._step = None
        self.bypass()

    def bypass(self) -> None:
        """Let the next forward compute everything and keep nothing."""
        self._running = self._output = None
        kept = Kept(self.stats)
        for hook in self._hooks:
            hook.rest(kept)
        if self._forward is not None:
            self._forward.rest()

    def prepare(self, step: int, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Tell every hook what to do in the next forward.

        Arguments:
            step: the row that is running.
            args, kwargs: of the forward; a pass whose inputs change shape starts again.
        """
        self._index = self._index + 1 if step == self._step else 0
        self._step = step
        inputs = [*args, *kwargs.values()]
        state = self._running = self._pass(self._index, step, _describe(inputs))
        if step == state.first:
            self._seen[self._index] = as_meta((args, kwargs))
        gate = self._one_half_from
        replays = self._forward is not None and self._forward.is_alone
        one_half = replays and gate is not None and state.first < gate <= step
        if step in self._gates:
            average((kept for site, kept in enumerate(state.kept) if site in self._gates[step]), inputs[0], one_half)
        actions = state.rows.actions[step - state.first]
        for hook, action, kept in zip(self._hooks, actions, state.kept, strict=True):
            hook.act(action, kept)
        if state.rows.lines:
            for kept, line in zip(state.kept, state.rows.lines[step - state.first], strict=True):
                kept.line = line
            self._output = output = state.output
            output.runs, output.ahead, output.held = state.rows.outputs[step - state.first]
        if self._forward is not None:
            self._forward.actions, self._forward.one_half = actions, one_half
        state.next = step + 1

    def answer(self, forward: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What a forward returns, once `prepare` was told of it; where no component runs, it need not run."""
        output, self._output = self._output, None  # of forwards inside one another, the outermost answers
        return forward(*args, **kwargs) if output is None else output.of(forward, args, kwargs)

    def _release_forward(self) -> None:
        if self._forward is not None:
            self._forward.remove()
        self._forward = None

    def finish(self) -> None:
        """Count the calls of a forward that has run to its end."""
        for hook in self._hooks:
            hook.settle()
        if self._running is not None and self._step is not None:
            computed, reused, skipped = self._running.rows.counts[self._step - self._running.first]
            self.stats.computed += computed
            self.stats.reused += reused
            self.stats.skipped += skipped

    def _pass(self, index: int, step: int, inputs: object) -> _Pass:
        state = self._passes[index] if index < len(self._passes) else None
        # What a pass keeps is right for the very next step and for inputs of the same shapes only.
        if state is not None and (state.next, state.inputs) == (step, inputs):
            return state
        if state is not None:
            state.free()
        kept = [Kept(self.stats, self._storage) for _ in self._hooks]
        state = _Pass(self._rows(step), step, inputs, kept, Output(self.stats, self._storage))
        self._passes[index : index + 1] = [state]
        return state

    def _rows(self, first: int) -> _Rows:
        if first not in self._rows_from:
            recompute, ahead = self.schedule.recompute[first:, self._order], self._ahead(first)
            depth = np.array([one.depth for one in ahead])
            self._rows_from[first] = _Rows(make_plan(recompute, self._readers, self.schedule.forecast, depth), ahead)
        return self._rows_from[first]

    def _ahead(self, first: int) -> list[Ahead]:
        """`forecasts` of a generation that begins at a row."""
        schedule, products = self.schedule, self.schedule.output_products
        runs = np.asarray(executed(schedule.recompute[first:, self._order], self._readers).any(axis=1))
        # Weights are right for what ran before, products for any beginning.
        weights = None if first else schedule.output_weights
        return forecasts(runs.tolist(), None if products is None else products[first:, first:], weights)


def _describe(inputs: Iterable[Any]) -> tuple[object, ...]:
    """The shape and device of every tensor among a forward's arguments; autocast changes dtypes on the way."""
    return tuple((tensor.shape, tensor.device) for tensor in tensors_in(inputs))


def _match(schedule: CacheSchedule, sites: list[Site], model: str) -> np.ndarray:
    """Where each of the denoiser's sites stands in the schedule."""
    index = {site: position for position, site in enumerate(schedule.sites)}
    expected = {(site.block, site.component): None for site in sites}
    odd = [site for site in expected if site not in index] or [site for site in index if site not in expected]
    if odd:
        block, component = odd[0]
        raise ScheduleError(
            f"schedule {schedule.name!r} does not fit {model}",
            block=block,
            component=component,
            expected=_block(block, expected),
            found=_block(block, index),
            remedy="use one that was made for this model, or start one with CacheSchedule.for_model",
        )
    return np.array([index[site] for site in expected], dtype=np.intp)


def _block(block: str, sites: Iterable[tuple[str, str]]) -> str:
    blocks: dict[str, list[str]] = {}
    for name, component in sites:
        blocks.setdefault(name, []).append(component)
    return f"{', '.join(blocks.get(block, ['no such block']))} among {len(blocks)} blocks"
