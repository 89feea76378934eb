"""Exports a study's front: a selection of its schedules, with held-out scores and provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ecad.errors import ScheduleError
from ecad.genetic.study.layout import FRONT
from ecad.genetic.study.study import Candidate, Study
from ecad.schedules import CacheSchedule
from ecad.schedules.front import Front, Point
from ecad.schedules.plan_key import plan_key
from ecad.schedules.provenance import KEY, Interval, Provenance
from ecad.utils.files import as_file_name

# A long search's front has hundreds of schedules, most of them nearly alike.
MAX_EXPORTED = 24


def select_for_export(front: Sequence[Candidate]) -> list[Candidate]:
    """The best candidate at or below each of at most `MAX_EXPORTED` evenly spaced costs; `front` is cheapest first."""
    if len(front) <= MAX_EXPORTED:
        return list(front)
    costs = np.array([candidate.cost for candidate in front])
    last = np.searchsorted(costs, np.linspace(costs[0], costs[-1], MAX_EXPORTED), side="right") - 1
    return [front[i] for i in np.unique(last)]


def with_provenance(
    schedule: CacheSchedule, origin: Provenance, study: Study, held_out: Mapping[str, Interval], images: int
) -> CacheSchedule:
    """A schedule that records the model, the search and its held-out scores.

    Args:
        schedule: found by the study.
        origin: provenance of any schedule of the study's generator.
        study: that found the schedule.
        held_out: scorer -> its held-out score.
        images: the number of images that these are means of.
    """
    settings = study.settings
    provenance = replace(
        origin,
        search={
            **{name: settings[name] for name in ("mode", "seed", "population_size", "scorer")},
            "prompts": len(settings["prompts"]),
            "images of each prompt": len(settings["seeds"]),
            "generations": len(study.history),
            "images": study.images,
        },
        held_out=held_out,
        held_out_images=images if held_out else 0,
    )
    return schedule.replace(attributes={**schedule.attributes, KEY: provenance.to_json()})


def front_of(
    studies: Sequence[Study],
    candidates: Sequence[Candidate],
    schedules: Sequence[CacheSchedule],
    held_out: Sequence[Mapping[str, Interval]],
    validation_prompts: int,
) -> Front:
    """What a study exports, as one front.

    Args:
        studies: that found it, one per number of steps; costs are relative to an uncached image of the most.
        candidates: at least one, with what is to be its quality.
        schedules: theirs, as they are exported.
        held_out: theirs: scorer -> held-out score.
        validation_prompts: whose scores the qualities are; 0 if they are those of the search.
    """
    study = studies[-1]
    whole = max(one.uncached_cost for one in studies)
    points = [
        Point(schedule, candidate.cost / whole, candidate.quality, scores)
        for candidate, schedule, scores in zip(candidates, schedules, held_out, strict=True)
    ]
    settings = study.settings
    provenance = {
        "method": f"search, mode {settings['mode']}",
        "search_prompts": len(settings["prompts"]),
        "validation_prompts": validation_prompts,
        "images": sum(one.images for one in studies),
    }
    if len(studies) > 1:
        provenance["rows"] = [one.settings["steps"] for one in studies]
    name = str(settings["evaluator"].get("generator", "front"))
    return Front(name, points, settings["scorer"], "MACs" if study.unit == "MACs" else "ns", provenance)


def save_front(schedules: Sequence[CacheSchedule], folder: Path) -> None:
    """Write schedules into the folder `front` of a study, and remove those of an earlier front."""
    files = {f"{as_file_name(schedule.name)}.json": schedule for schedule in schedules}
    for old in (folder / FRONT).glob("*gen_*_cand_*.json"):
        if old.name not in files:
            old.unlink()
    for file, schedule in files.items():
        path = folder / FRONT / file
        _with_metrics_of(path, schedule).save(path)


def _with_metrics_of(file: Path, schedule: CacheSchedule) -> CacheSchedule:
    """A schedule with what was measured of it since an earlier front wrote its file, such as its latency."""
    try:
        before = CacheSchedule.load(file)
    except ScheduleError:  # not written yet, or damaged
        return schedule
    if plan_key(before) != plan_key(schedule) or before.config != schedule.config:
        return schedule
    return schedule.replace(metrics={**before.metrics, **schedule.metrics})
