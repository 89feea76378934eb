"""Rivals without code of their own: fewer steps, and hand-made schedules."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ecad.genetic.problem import Problem
from ecad.genetic.study.study import Study
from ecad.schedules import CacheSchedule, heuristics
from ecad.schedules import tgate as tgate_format
from ecad.schedules.front import Front
from rivals.figures import STUDY
from rivals.setting import Setting, of_schedule

# 15, 10, 8, 6 and 5 of 20 steps.
FEWER = (0.75, 0.5, 0.4, 0.3, 0.25, 0.2, 0.15)
# TGATE's README: gate at step 8 of 25 for PixArt, self-attention every 5 steps before the gate.
GATES = (0.2, 0.3, 0.5, 0.7)
# Fractions of an uncached image's cost at which schedules of a front are compared.
BUDGETS = np.array([0.15, 0.2, 0.25, 2 / 7, 0.3, 1 / 3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 2 / 3, 0.7, 0.8])


def fewer_steps(steps: int) -> list[Setting]:
    """Uncached with fewer steps."""
    counts = dict.fromkeys(round(share * steps) for share in FEWER)
    return [Setting("fewer steps", str(n), {"steps": n}, steps=n) for n in counts if 0 < n < steps]


def every_n(problem: Problem) -> list[Setting]:
    """FORA (arXiv 2407.01425)."""
    steps, sites = problem.shape[0], problem.template.sites
    return [
        of_schedule("every-n (FORA)", str(n), heuristics.every_n(sites, steps, n), {"n": n})
        for n in range(2, 8)
        if n < steps
    ]


def tgate(problem: Problem) -> list[Setting]:
    """TGATE (arXiv 2404.02747) with its averaging of the guidance halves; from the gate on, one half runs."""
    steps, sites = problem.shape[0], problem.template.sites
    if not {"attn1", "attn2"} <= set(problem.template.components):
        return [Setting("TGATE", "all", unusable="freezes cross-attention, which this model does not have")]
    found = []
    for gate in dict.fromkeys(max(2, round(share * steps)) for share in GATES):
        if gate >= steps:
            continue
        schedule = with_averaging(heuristics.tgate(sites, steps, gate), gate)
        found.append(of_schedule("TGATE", f"gate {gate}", schedule, {"gate": gate, "sp_interval": 5, "warmup": 2}))
    return found or [Setting("TGATE", "all", unusable=f"{steps} steps leave nothing to gate")]


def with_averaging(schedule: CacheSchedule, gate: int) -> CacheSchedule:
    """The schedule with the entries that published files have at their gate."""
    attends = [block for block, component in schedule.sites if component == "attn2"]
    custom = {(gate, block, tgate_format.KEY): tgate_format.gate_entry(gate) for block in attends}
    pipeline = {"name": "tgate", "kwargs": {tgate_format.GATE: gate}}
    return schedule.replace(custom_compute=custom, config={**schedule.config, "pipeline": pipeline})


def of_studies(studies: Iterable[Study], problem: Problem) -> list[Setting]:
    """The best schedules of each study of ecad by its own prompts, at or below each of fifteen costs.

    The first study of a mode has the mode's name. The others show how much studies differ.
    """
    found: dict[str, Setting] = {}
    seen: set[str] = set()
    for study in studies:
        mode = f"ecad {study.settings['mode']}"
        rival = f"{mode}{STUDY}{study.settings['seed']}" if mode in seen else mode
        seen.add(mode)
        for candidate in affordable(study):
            schedule = candidate.schedule.resample(steps=problem.shape[0])
            facts: dict[str, Any] = {"study": study.settings["seed"], "schedule": candidate.schedule.name}
            setting = of_schedule(rival, f"{study.settings['seed']} {candidate.schedule.name}", schedule, facts)
            found[setting.key] = setting
    return list(found.values())


def of_fronts(fronts: Iterable[Front], problem: Problem) -> list[Setting]:
    """All schedules of the fronts that `ecad optimize` and `ecad calibrate` write, as they are handed out.

    The first front of a method has the method's name. The others show how much fronts differ.
    """
    found: dict[str, Setting] = {}
    seen: dict[str, int] = {}
    for front in fronts:
        method = f"ecad {front.provenance.get('method', 'optimize')}"
        place = seen[method] = seen.get(method, -1) + 1
        for schedule in front.schedules:
            name = f"{place} {schedule.name}"
            rival = f"{method}{STUDY}{place}" if place else method
            setting = of_schedule(rival, name, schedule.resample(steps=problem.shape[0]), {"front": place})
            found[setting.key] = setting
    return list(found.values())


def affordable(study: Study) -> list[Any]:
    """The best candidates at or below each budget, without repetition, cheapest first."""
    front = study.front()
    costs = np.array([candidate.cost for candidate in front]) / study.uncached_cost
    last = np.searchsorted(costs, BUDGETS, side="right") - 1
    return [front[i] for i in np.unique(last[last >= 0])]
