"""One denoiser under one schedule: its sites, its hooks, and the state of each of its passes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from torch import nn

from ecad.errors import ScheduleError
from ecad.runtime.discovery import Site, named_sites
from ecad.runtime.families import readers
from ecad.runtime.hooks import CacheStats, ComponentHook, Kept, tensors_in
from ecad.runtime.plan import Action, Plan, make_plan
from ecad.runtime.replay import Replay
from ecad.schedules import CacheSchedule

_ACTIONS = tuple(Action)


class _Program:
    """A plan from some step on, in the form in which it is replayed."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.rows = [[_ACTIONS[action] for action in row] for row in plan.actions.tolist()]
        self.counts = plan.counts().tolist()


class _Pass:
    """The state of one forward of every step (of two, if guidance takes two), from the step it first ran in."""

    def __init__(self, program: _Program, step: int, inputs: object, kept: list[Kept]) -> None:
        self.program, self.first, self.inputs, self.kept = program, step, inputs, kept
        self.next = step


class CachedDenoiser:
    """Runs a denoiser's forwards under a schedule.

    Arguments:
        name: what the pipeline calls it.
        module: the denoiser.
        schedule: must name exactly the denoiser's sites, in any order, or sites of its own by module path.
        stats: where its calls and bytes are counted.

    Raises ScheduleError if the schedule's sites are not the denoiser's.
    """

    def __init__(self, name: str, module: nn.Module, schedule: CacheSchedule, stats: CacheStats) -> None:
        self.name, self.module, self.schedule, self.stats = name, module, schedule, stats
        _refuse_custom_compute(schedule)
        sites = named_sites(module, schedule.sites)
        self._order = _match(schedule, sites, type(module).__name__)
        self._readers = readers([(site.block, site.component) for site in sites])
        self._programs: dict[int, _Program] = {}
        self._hooks: list[ComponentHook] = []
        self._forward: Replay | None = None
        self._passes: list[_Pass] = []
        self._step: int | None = None
        self._index = 0
        self._running: _Pass | None = None

    @property
    def plan(self) -> Plan:
        """What a whole generation does, sites in the denoiser's order."""
        return self._program(0).plan

    def attach(self) -> None:
        """Put the hooks on top of whatever else wraps the components by now.

        Repeated before every generation, because offloading throws hooks away and adapters replace modules.
        """
        sites = named_sites(self.module, self.schedule.sites)
        self._order = _match(self.schedule, sites, type(self.module).__name__)
        mine = set(self._hooks)
        tops = [top if (top := vars(site.module).get("forward")) in mine else None for site in sites]
        for hook in mine.difference(tops):
            hook.remove()
        kept = Kept(self.stats)
        self._hooks = [top or ComponentHook(site.module, kept) for top, site in zip(tops, sites, strict=True)]
        if self._forward is None or vars(self.module).get("forward") is not self._forward:
            self._release_forward()
            if "forward" not in vars(self.module):  # somebody else's forward may do more than the module's own
                self._forward = Replay(self.module)
        if self._forward is not None:
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
            _free(state.kept)
        self._passes = []
        self._step = None
        self.bypass()

    def bypass(self) -> None:
        """Let the next forward compute everything and keep nothing."""
        self._running = None
        kept = Kept(self.stats)
        for hook in self._hooks:
            hook.rest(kept)
        if self._forward is not None:
            self._forward.actions = None

    def prepare(self, step: int, inputs: object) -> None:
        """Tell every hook what to do in the next forward.

        Arguments:
            step: the row that is running.
            inputs: a description of the forward's inputs; a pass whose inputs change shape starts again.
        """
        self._index = self._index + 1 if step == self._step else 0
        self._step = step
        state = self._running = self._pass(self._index, step, inputs)
        actions = state.program.rows[step - state.first]
        for hook, action, kept in zip(self._hooks, actions, state.kept, strict=True):
            hook.action = action
            hook.kept = kept
        if self._forward is not None:
            self._forward.actions = actions
        state.next = step + 1

    def _release_forward(self) -> None:
        if self._forward is not None:
            self._forward.remove()
        self._forward = None

    def finish(self) -> None:
        """Count the calls of a forward that has run to its end."""
        if self._running is not None and self._step is not None:
            computed, reused, skipped = self._running.program.counts[self._step - self._running.first]
            self.stats.computed += computed
            self.stats.reused += reused
            self.stats.skipped += skipped

    def _pass(self, index: int, step: int, inputs: object) -> _Pass:
        state = self._passes[index] if index < len(self._passes) else None
        # What a pass keeps is right for the very next step and for inputs of the same shapes only.
        if state is not None and (state.next, state.inputs) == (step, inputs):
            return state
        if state is not None:
            _free(state.kept)
        state = _Pass(self._program(step), step, inputs, [Kept(self.stats) for _ in self._hooks])
        self._passes[index : index + 1] = [state]
        return state

    def _program(self, first: int) -> _Program:
        if first not in self._programs:
            bits = self.schedule.recompute[first:, self._order]
            self._programs[first] = _Program(make_plan(bits, self._readers))
        return self._programs[first]


def describe(inputs: Iterable[Any]) -> tuple[object, ...]:
    """The shape, dtype and device of every tensor among a forward's arguments."""
    return tuple((tensor.shape, tensor.dtype, tensor.device) for tensor in tensors_in(inputs))


def _free(kept: list[Kept]) -> None:
    for one in kept:
        one.free()


def _refuse_custom_compute(schedule: CacheSchedule) -> None:
    for (step, block, key), custom in schedule.custom_compute.items():
        if step < schedule.num_steps:
            raise ScheduleError(
                f"schedule {schedule.name!r} computes this in its own way, which the runtime cannot",
                step=f"{step:03d}",
                block=block,
                component=key,
                expected="true and false only",
                found=str(custom.get("name")),
            )


def _match(schedule: CacheSchedule, sites: list[Site], model: str) -> np.ndarray:
    """Where each of the denoiser's sites stands in the schedule."""
    index = {site: position for position, site in enumerate(schedule.sites)}
    expected = {(site.block, site.component): None for site in sites}
    odd = [site for site in expected if site not in index] or [site for site in index if site not in expected]
    if odd:
        block, component = odd[0]
        raise ScheduleError(
            f"schedule {schedule.name!r} does not fit {model}; take one that was made for it, or start one with "
            "CacheSchedule.for_model",
            block=block,
            component=component,
            expected=_block(block, expected),
            found=_block(block, index),
        )
    return np.array([index[site] for site in expected], dtype=np.intp)


def _block(block: str, sites: Iterable[tuple[str, str]]) -> str:
    blocks: dict[str, list[str]] = {}
    for name, component in sites:
        blocks.setdefault(name, []).append(component)
    return f"{', '.join(blocks.get(block, ['no such block']))} among {len(blocks)} blocks"
