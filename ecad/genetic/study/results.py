"""A study, finished or not, as the results that a report shows."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ecad.cost.architectures import Architecture, find_architecture
from ecad.cost.macs import macs_table
from ecad.cost.memory import kept_bytes_of_many
from ecad.cost.table import CostTable
from ecad.errors import EcadError, ScheduleError
from ecad.genetic.algorithms.surrogate_check import guesses
from ecad.genetic.baselines import baselines
from ecad.genetic.study.layout import DATABASE, FRONT, MEASURED, PICTURES, TIMES
from ecad.genetic.study.study import Candidate as Evaluated
from ecad.genetic.study.study import Study
from ecad.images.folder import MANIFEST
from ecad.quality import mean_interval
from ecad.report.results import (
    RESULTS_FILE,
    Candidate,
    Entry,
    Generation,
    Guess,
    Interval,
    Kind,
    Picture,
    Results,
    image_paths,
)
from ecad.schedules import CacheSchedule
from ecad.schedules.files import measured_speedup
from ecad.schedules.schedule import Bits
from ecad.utils.files import parse_json
from ecad.utils.versions import PARTS


def read_results(folder: str | os.PathLike[str]) -> Results:
    """The results in a folder: a demo's, or a study's.

    Raises:
        EcadError: neither is there, or it is damaged.
    """
    place = Path(folder)
    if (place / RESULTS_FILE).exists():
        return Results.load(place)
    if (place / DATABASE).exists():
        return study_results(place)
    if not place.is_dir():
        raise EcadError(f"{place}: expected a folder, found {'a file' if place.exists() else 'nothing'}")
    if below := sorted(file.parent.name for file in place.glob(f"*/{DATABASE}")):
        raise EcadError(
            f"{place}: a search of several numbers of steps: name one of its studies: {', '.join(below[:5])}"
        )
    expected = f"a study ({DATABASE}), a demo ({RESULTS_FILE}) or folders of images (*/{MANIFEST})"
    raise EcadError(f"{place}: nothing to report: expected {expected}, found none of them")


def study_results(folder: str | os.PathLike[str]) -> Results:
    """The results of a study: its front and baselines, their held-out scores, and images if there are any.

    Raises:
        EcadError: there is no study, nothing is in it yet, or it is damaged.
    """
    study = Study.open(folder)
    try:
        return results_of(study, Path(folder))
    finally:
        study.close()


def results_of(study: Study, folder: Path | None = None) -> Results:
    """`study_results` of an open study. `folder` holds its images and measured times; None if there are none."""
    scorer = study.settings["scorer"]
    pictures = read_pictures(folder)
    entries = [
        _entry(study, name, kind, schedule, macs, folder, len(pictures))
        for name, kind, schedule, macs in shown(study, folder)
    ]
    return Results(
        title=f"Cache schedules of {generator_of(study)}",
        generator=generator_of(study),
        pictures=pictures,
        entries=tuple(entries),
        quality_name=scorer,
        candidates=tuple(
            Candidate(
                c.generation,
                macs,
                c.quality,
                c.number,
                np.packbits(c.recompute).tobytes(),
                kept_bytes=kept,
                expected_ns=c.cost if study.unit == "ns" else None,
                forecast=c.plain.forecast,
            )
            for c, macs, kept in zip(
                study.candidates,
                _macs(study, study.candidates, folder),
                _kept(study, [c.plain for c in study.candidates]),
                strict=True,
            )
        ),
        history=tuple(Generation(g.number, g.images, g.seconds, g.hypervolume, g.front_size) for g in study.history),
        guesses=tuple(Guess(*guess) for guess in guesses(study)),
        settings=_settings(study),
        missing=tuple(_missing(study, entries, folder)),
    )


def shown(study: Study, folder: Path | None = None) -> list[tuple[str, Kind, CacheSchedule, int]]:
    """Name, kind, schedule and MACs of the schedules that a report shows: uncached, baselines, front."""
    template = study.uncached
    [macs] = macs_of(study, [template], [study.uncached_cost], folder)
    found: list[tuple[str, Kind, CacheSchedule, int]] = [
        ("uncached", "uncached", template.replace(output_products=None), macs)
    ]
    if (architecture := architecture_of(study)) is not None:
        table = macs_table(architecture)
        for name, schedule in baselines(template).items() if table.sites == template.sites else ():
            found.append((name, "baseline", schedule, int(table.price(schedule.recompute))))
    front = study.front()
    pairs = zip(front, _macs(study, front, folder), strict=True)
    return found + [(candidate.schedule.name, "found", candidate.schedule, macs) for candidate, macs in pairs]


def _macs(study: Study, candidates: Sequence[Evaluated], folder: Path | None) -> list[int]:
    return macs_of(study, [candidate.plain for candidate in candidates], [c.cost for c in candidates], folder)


def macs_of(
    study: Study, schedules: Sequence[CacheSchedule], costs: Sequence[int], folder: Path | None = None
) -> list[int]:
    """MACs per image under each of a study's schedules; the given costs, if its model's MACs are unknown."""
    table = None if study.unit == "MACs" or not schedules else _macs_table(study, folder)
    if table is None:
        return list(costs)
    bits, forecast = _tables(schedules)
    return [int(macs) for macs in table.price(bits, forecast)]


def _macs_table(study: Study, folder: Path | None) -> CostTable | None:
    """The MACs of a model by site: known of registered ones, written beside the times of others."""
    if (architecture := architecture_of(study)) is not None:
        return macs_table(architecture)
    return None if folder is None else _times(folder).get("macs")


def _times(folder: Path) -> dict[str, CostTable]:
    """The tables of `times.json`: "table" in nanoseconds and, since it is written, "macs"; empty without the file."""
    if not (folder / TIMES).is_file():
        return {}
    try:
        known = parse_json((folder / TIMES).read_bytes())
        return {
            name: CostTable.from_json(known[name]) for name in ("table", "macs") if name == "table" or name in known
        }
    except (OSError, ValueError, KeyError, TypeError, ScheduleError) as error:
        raise EcadError(
            f"{folder / TIMES}: expected the times that the study was searched by, found {error}"
        ) from error


def _tables(schedules: Sequence[CacheSchedule]) -> tuple[Bits, np.ndarray]:
    """What schedules of one shape recompute, and which of them extrapolate."""
    return np.array([one.recompute for one in schedules]), np.array([one.forecast for one in schedules])


def generator_of(study: Study) -> str:
    """The name of the image generator that was searched."""
    return str(study.settings["evaluator"].get("generator", "a custom model"))


def architecture_of(study: Study) -> Architecture | None:
    """The denoiser that was searched; None if its generator is not registered."""
    config = study.settings["config"]
    try:
        return find_architecture(generator_of(study), config.get("height"), config.get("width"))
    except EcadError:
        return None


def read_pictures(folder: Path | None) -> tuple[Picture, ...]:
    """The prompts and seeds of the images in a study's folder; none if there are no images."""
    if folder is None or not (folder / PICTURES).is_file():
        return ()
    try:
        return tuple(Picture(**row) for row in parse_json((folder / PICTURES).read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise EcadError(f"{folder / PICTURES}: expected a list of prompts and seeds: remove the folder") from error


def _entry(
    study: Study, name: str, kind: Kind, schedule: CacheSchedule, macs: int, folder: Path | None, num_pictures: int
) -> Entry:
    found, scores = study.search_scores(schedule), {}
    for scorer, items in study.held_out_by.items():
        again = study.held_out_scores(schedule, scorer)
        prompts = np.unique([item.prompt.id for item in items], return_inverse=True)[1]
        if len(again) and not np.isnan(again).any():
            scores[scorer] = Interval(float(again.mean()), *mean_interval(again, prompts))
    images = image_paths(name, num_pictures)
    return Entry(
        name=name,
        kind=kind,
        schedule=schedule,
        macs=macs,
        time_ratio=1.0 if kind == "uncached" else _speedup(folder, name),
        scores=scores,
        search_quality=None if np.isnan(found).any() else float(found.mean()),
        images=images if folder is not None and any((folder / image).exists() for image in images) else (),
        kept_bytes=_kept(study, [schedule])[0],
        expected_ns=_expected(study, schedule, folder),
    )


def _kept(study: Study, schedules: Sequence[CacheSchedule]) -> list[int] | list[None]:
    """Peak bytes kept under each of a study's schedules; None where its model is unknown."""
    architecture, sites = architecture_of(study), study.uncached.sites
    if architecture is None or macs_table(architecture).sites != sites:
        return [None] * len(schedules)
    kept = np.zeros(len(schedules), dtype=np.int64)
    bits, forecast = _tables(schedules)
    for which in (False, True):
        kept[forecast == which] = kept_bytes_of_many(bits[forecast == which], sites, architecture, which)
    return [int(one) for one in kept]


def _expected(study: Study, schedule: CacheSchedule, folder: Path | None) -> int | None:
    """Expected nanoseconds per image, if the study was searched by latency and its table of times exists."""
    table = None if study.unit != "ns" or folder is None else _times(folder).get("table")
    try:
        return None if table is None else int(table.price(schedule.recompute, schedule.forecast))
    except ScheduleError as error:
        raise EcadError(f"{folder}: {TIMES} has other sites than the study: {error}") from error


def read_measured(folder: Path) -> dict[str, Any]:
    """What `ecad report --images` has measured: the device, and each schedule's speed-up over uncached.

    Raises:
        EcadError: the file is damaged.
    """
    if not (folder / MEASURED).is_file():
        return {"device": None, "speedups": {}}
    try:
        told = parse_json((folder / MEASURED).read_bytes())
        speedups = {str(name): float(ratio) for name, ratio in told["speedups"].items()}
        if not all(0 < ratio < float("inf") for ratio in speedups.values()):
            raise ValueError("a speed-up that is not positive")
        return {"device": str(told["device"]), "speedups": speedups}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EcadError(f"{folder / MEASURED}: expected measured speed-ups, found {error}: remove it") from error


def _speedup(folder: Path | None, name: str) -> float | None:
    """The speed-up that `ecad latency` wrote into the schedule's file in `front`, or that `--images` measured."""
    if folder is None:
        return None
    measured: float | None = read_measured(folder)["speedups"].get(name)
    file = folder / FRONT / f"{name}.json"
    try:
        value = measured_speedup(CacheSchedule.load(file)) if file.is_file() else None
    except ScheduleError:
        value = None
    return measured if value is None else value


def _settings(study: Study) -> dict[str, Any]:
    told: Mapping[str, Any] = study.settings
    names = ("mode", "population_size", "scorer", "seed", "max_cost", "min_quality", "batch_size", "config")
    rows = {"rows": told["steps"], **{name.replace("_", " "): told.get(name) for name in names}}
    rows |= {"search prompts": len(told["prompts"]), "seeds of each": len(told["seeds"])}
    rows |= {f"version of {package}": ", ".join(found) for package, found in study.versions.items()}
    parts = ", ".join(f"{name} {fingerprint}" for name, fingerprint in told["evaluator"].get(PARTS, {}).items())
    return {**rows, **told["evaluator"], **({PARTS: parts} if parts else {})}


def _missing(study: Study, entries: list[Entry], folder: Path | None) -> list[str]:
    told = []
    if study.unit == "ns" and _macs_table(study, folder) is None:
        told.append("The MACs of this model are not known: numbers under MACs are nanoseconds.")
    if not study.candidates:
        told.append("No schedule has been evaluated yet.")
    elif study.candidates[-1].generation > (study.history[-1].number if study.history else -1):
        told.append(
            f"Generation {study.candidates[-1].generation} is not complete: the search is running or was stopped."
        )
    if study.failures:
        name, reason = next(iter(study.failures.items()))
        told.append(f"{len(study.failures)} candidates were given up; the first, {name}: {' '.join(reason.split())}")
    if study.candidates and not any(entry.scores for entry in entries if entry.kind == "found"):
        told.append("No held-out scores: a search with held-out prompts writes them when it ends.")
    elif any(entry.kind == "found" and not entry.scores for entry in entries):
        told.append("Some schedules of the front have no held-out scores.")
    if study.candidates and not any(entry.images for entry in entries):
        told.append("No images: `ecad report FOLDER --images 6` makes some, and scores the baselines.")
    return told
