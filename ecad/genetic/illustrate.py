"""Adds to a study what a report shows besides: images and measured times, and scores of the baselines."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from ecad.cost.latency import measure_interleaved, speedups
from ecad.errors import EcadError
from ecad.genetic.evaluation.evaluator import REFERENCE_STEPS, LocalEvaluator, evaluate_each
from ecad.genetic.evaluation.image_evaluator import evaluator_of
from ecad.genetic.study.items import Item
from ecad.genetic.study.layout import MEASURED, PICTURES
from ecad.genetic.study.results import generator_of, read_measured, read_pictures, shown
from ecad.genetic.study.store import Store
from ecad.genetic.study.study import Study
from ecad.image_generators import ImageGenerator
from ecad.report.results import Picture, image_paths, save_images
from ecad.schedules import CacheSchedule
from ecad.utils.device import device_name
from ecad.utils.files import write_atomic
from ecad.utils.versions import PARTS

# The largest number of schedules of the front that are shown side by side.
MAX_SHOWN = 12
TIMED_ROUNDS = 3

Bar = Callable[[Iterable[Any], str], Iterable[Any]]


def illustrate(study: Study, folder: str | os.PathLike[str], generator: ImageGenerator, images: int, bar: Bar) -> None:
    """Score a study's baselines, and make and time images of them and of the front.

    Nothing that exists is made again. Images are of held-out prompts if the study has any.

    Args:
        study: of the schedules.
        folder: of the study.
        generator: that the study searched.
        images: number of images per schedule, one per prompt.
        bar: draws progress: (items, label) -> items.

    Raises:
        EcadError: the study is of another generator, another process writes it, or a file cannot be written.
    """
    check_generator(study, folder, generator)
    schedules = {name: (kind, schedule) for name, kind, schedule, _ in shown(study)}
    scored = [schedule for kind, schedule in schedules.values() if kind == "baseline"]
    with Store.open(folder) as store:
        for items in filter(None, (study.items, study.held_out)):
            evaluator = evaluator_for(generator, items, study)
            store.ensure_scorer(evaluator.scorer, evaluator.settings)
            for schedule in bar(scored, "baselines"):
                list(evaluate_each(evaluator, [schedule], store))
    illustrated = _evenly_spaced({name: schedule for name, (_, schedule) in schedules.items()})
    _make_images(study, Path(folder), generator, illustrated, images, bar)
    _measure_times(study, Path(folder), generator, illustrated, bar)


def check_generator(study: Study, folder: str | os.PathLike[str], generator: ImageGenerator) -> None:
    """Raise EcadError if a study is of another generator; `folder` is the study's."""
    settings = study.settings["evaluator"]
    parts = {**generator.text_parts_fingerprints(), **generator.parts()}
    is_same = (generator.name, generator.fingerprint()) == (settings.get("generator"), settings.get("weights"))
    if is_same and settings.get(PARTS, parts) != parts:
        differ = sorted(name for name in {**parts, **settings[PARTS]} if parts.get(name) != settings[PARTS].get(name))
        raise EcadError(f"{os.fspath(folder)}: the study is of a pipeline with another {', '.join(differ)}")
    if not is_same:
        expected = f"{generator_of(study)} with weights {settings.get('weights')}"
        found = f"{generator.name} with {generator.fingerprint()}"
        raise EcadError(f"{os.fspath(folder)}: the study is of another model: it needs {expected}, found {found}")


def evaluator_for(generator: ImageGenerator, items: Sequence[Item], study: Study) -> LocalEvaluator:
    """What makes and scores a study's images, or held-out ones, as its search did."""
    prompts = list(dict.fromkeys(item.prompt for item in items))
    seeds = list(dict.fromkeys(item.seed for item in items))
    settings = study.settings
    reference = settings["evaluator"].get(REFERENCE_STEPS)
    return evaluator_of(generator, prompts, seeds, settings["scorer"], settings["batch_size"], reference)


def _evenly_spaced(schedules: dict[str, CacheSchedule]) -> dict[str, CacheSchedule]:
    """The uncached schedule, the baselines, and at most `MAX_SHOWN` of the front."""
    front = [name for name in schedules if name.startswith("gen_")]
    count = min(len(front), MAX_SHOWN)
    kept = {front[round(i * (len(front) - 1) / max(1, count - 1))] for i in range(count)}
    return {name: schedule for name, schedule in schedules.items() if name in kept or name not in front}


def _make_images(
    study: Study, folder: Path, generator: ImageGenerator, schedules: dict[str, CacheSchedule], images: int, bar: Bar
) -> None:
    # One image per prompt: prompts differ more than seeds do.
    first = {item.prompt: item for item in reversed(study.held_out or study.items)}
    items = list(reversed(first.values()))[:images]
    pictures = tuple(Picture(item.prompt.text, item.seed, generator.architecture.frames) for item in items)
    again = read_pictures(folder) != pictures
    todo = [
        (name, schedule)
        for name, schedule in schedules.items()
        if again or not all((folder / path).exists() for path in image_paths(name, len(items)))
    ]
    embeds = generator.encode([item.prompt.text for item in items])
    rows = [asdict(picture) for picture in pictures]
    if again:
        (folder / PICTURES).unlink(missing_ok=True)
    for name, schedule in bar(todo, "images"):
        save_images(folder, name, list(generator.generate(embeds, [item.seed for item in items], schedule)))
    write_atomic(folder / PICTURES, json.dumps(rows, indent=1, ensure_ascii=False) + "\n")


def _measure_times(
    study: Study, folder: Path, generator: ImageGenerator, schedules: dict[str, CacheSchedule], bar: Bar
) -> None:
    """Time batches under each schedule, interleaved with uncached ones, unless this was done on this device."""
    device, known = device_name(generator.pipe.device), read_measured(folder)
    ratios = known["speedups"] if known["device"] == device else {}
    todo = {name: schedule for name, schedule in schedules.items() if name not in ratios}
    if not todo:
        return
    items = study.items[: study.settings["batch_size"]]
    embeds, seeds = generator.encode([item.prompt.text for item in items]), [item.seed for item in items]
    runs = {
        name: partial(generator.generate, embeds, seeds, schedule)
        for name, schedule in {"uncached": schedules["uncached"], **todo}.items()
    }
    times = measure_interleaved(runs, TIMED_ROUNDS, progress=lambda rounds: bar(rounds, "timing"))
    document = {"device": device, "speedups": {**ratios, **speedups(times, "uncached")}}
    write_atomic(folder / MEASURED, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
