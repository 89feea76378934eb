"""What a search hands out: its front, each schedule scored on held-out images and told where it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ecad.errors import ScheduleError
from ecad.genetic.study.layout import FRONT
from ecad.genetic.study.study import Candidate, Study
from ecad.schedules import CacheSchedule
from ecad.schedules.plan import plan_key
from ecad.schedules.provenance import KEY, Interval, Provenance
from ecad.utils.files import as_file_name

# More than a person can choose from; a long search's front has hundreds, most of them nearly alike.
MOST = 24


def handed_out(front: Sequence[Candidate]) -> list[Candidate]:
    """Of a front, cheapest first, the best at or below each of at most `MOST` evenly spaced costs."""
    if len(front) <= MOST:
        return list(front)
    costs = np.array([candidate.cost for candidate in front])
    last = np.searchsorted(costs, np.linspace(costs[0], costs[-1], MOST), side="right") - 1
    return [front[i] for i in np.unique(last)]


def with_provenance(
    schedule: CacheSchedule, origin: Provenance, study: Study, held_out: Mapping[str, Interval], images: int
) -> CacheSchedule:
    """A schedule of a study with all that is known of it.

    Args:
        schedule: that the study found.
        origin: of schedules of its generator.
        study: that found it.
        held_out: scorer -> its score.
        images: that these are means of.
    """
    settings = study.settings
    provenance = replace(
        origin,
        search={
            **{name: settings[name] for name in ("mode", "seed", "population_size", "scorer")},
            "prompts": len(settings["prompts"]),
            "images of each prompt": len(settings["seeds"]),
            "generations": len(study.history),
            "images": study.history[-1].images if study.history else 0,
        },
        held_out=held_out,
        held_out_images=images if held_out else 0,
    )
    return schedule.replace(attributes={**schedule.attributes, KEY: provenance.to_json()})


def save_front(schedules: Sequence[CacheSchedule], folder: Path) -> None:
    """Write the front's files into a study's folder, and take away those of an earlier front."""
    files = {f"{as_file_name(schedule.name)}.json": schedule for schedule in schedules}
    for old in (folder / FRONT).glob("gen_*_cand_*.json"):
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
