"""`ecad demo`: from nothing to evolved schedules of the built-in model, in a few minutes on a laptop's CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from ecad import builtin
from ecad.commands.main import finish, main
from ecad.commands.progress import search_progress
from ecad.prompts import Prompt
from ecad.report import (
    Entry,
    Interval,
    Picture,
    Results,
    headline,
    missing_packages,
    rich_table,
    save_images,
    write_report,
    write_tables,
)
from ecad.schedules import CacheSchedule, heuristics
from ecad.utils.console import bar, console, say
from ecad.utils.files import make_folder

GENERATOR = "EmojiImageGenerator"
BASELINES = (2, 3, 4)
SEARCH_PROMPTS = 8
HELD_OUT_PROMPTS = 32
SHOWN_PROMPTS = 6
BATCH = 8
POPULATION = 12
GENERATIONS = 20
TIMED_ROUNDS = 5


@dataclass(frozen=True)
class Images:
    """The images of one schedule, uint8 (n, height, width, 3), and their held-out scores, float (n,)."""

    pixels: np.ndarray
    scores: dict[str, np.ndarray]


def demo(
    output_dir: Annotated[Path, typer.Option("--output-dir", "-o", help="Folder for all that it leaves.")] = Path(
        "demo"
    ),
    generations: Annotated[int, typer.Option(min=1, help="Generations of the search.")] = GENERATIONS,
    held_out: Annotated[int, typer.Option(min=SHOWN_PROMPTS, help="Prompts to judge with.")] = HELD_OUT_PROMPTS,
    max_minutes: Annotated[float, typer.Option(min=0.0, help="The search stops after so long.")] = 2.5,
    seed: Annotated[int, typer.Option(help="Of the search's random choices.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Evolve cache schedules for the built-in model and show what they are worth."""
    if missing := missing_packages():
        say(f"no page and no plots will be drawn: {missing}")
    make_folder(output_dir)
    from ecad.genetic.evaluation.image_evaluator import evaluator_of
    from ecad.genetic.evaluation.problems import problem_of
    from ecad.genetic.search import search
    from ecad.image_generators import get_image_generator

    generator = get_image_generator(GENERATOR, device="cpu")
    problem = problem_of(generator)
    hand_made = {"uncached": problem.template}
    for n in BASELINES:
        hand_made[f"every-{n}"] = heuristics.every_n(problem.template.sites, generator.steps, n)
    prompts = builtin.prompts("held_out")[:held_out]
    first = judge_schedules(generator, hand_made, prompts[:BATCH], "first look", as_json)
    if not as_json:
        console.print(_first_look(first))
    seen = [Prompt(f"{i:04d}", text) for i, text in enumerate(builtin.prompts("search")[:SEARCH_PROMPTS])]
    evaluator = evaluator_of(generator, seen, [0], "psnr", BATCH)
    with search_progress(hidden=as_json) as on_progress:
        study = search(
            replace(problem, forecast="either"),
            evaluator,
            output_dir / "study",
            generations=generations,
            max_seconds=60 * max_minutes,
            population_size=POPULATION,
            seed=seed,
            on_progress=on_progress,
        )
    costs = [int(problem.costs(schedule.recompute[None])[0]) for schedule in hand_made.values()]
    schedules = hand_made | choose(study.front(), [costs[0] // 1.5, *costs[1:], costs[0] // 6])
    judged = judge_schedules(generator, schedules, prompts, "held-out prompts", as_json)
    ratios = measure_speedups(generator, schedules, prompts[:BATCH], as_json)
    results = collect(study, generator, schedules, judged, ratios, prompts, output_dir)
    results.save(output_dir)
    page = None if missing else str(write_report(results, output_dir)[0])
    if missing:
        write_tables(results, output_dir)
    if not as_json:
        console.print(rich_table(results))
    where = f"page: {page}" if page else f"page: {missing}, then ecad report {output_dir}"
    line = f"{headline(results)}\nschedules: {output_dir / 'schedules'}\n{where}"
    finish({"page": page, "entries": [_facts(entry) for entry in results.ordered()]}, line, as_json)


def choose(front: Sequence[Any], costs: Sequence[float]) -> dict[str, CacheSchedule]:
    """From a front, cheapest first: the best candidate at or below each of the given costs, each candidate once."""
    chosen: dict[str, Any] = {}
    for cost in costs:
        affordable = [candidate for candidate in front if candidate.cost <= cost]
        if affordable and affordable[-1] not in chosen.values():
            chosen[f"found-{len(chosen) + 1}"] = affordable[-1]
    return {name: candidate.schedule for name, candidate in chosen.items()}


def judge_schedules(
    generator: Any, schedules: Mapping[str, CacheSchedule], prompts: Sequence[str], label: str, hidden: bool
) -> dict[str, Images]:
    """Make and score one image a prompt under each schedule; seeds are the prompts' places, away from the search's."""
    from ecad.quality import Judge, psnr

    judge, embeds = Judge(), generator.encode(prompts)
    starts = range(0, len(prompts), BATCH)
    made: dict[str, list[np.ndarray]] = {name: [] for name in schedules}
    for name, start in bar([(name, start) for name in schedules for start in starts], label, hidden):
        places = range(start, min(start + BATCH, len(prompts)))
        made[name].append(generator.generate(embeds[places], [1000 + i for i in places], schedules[name]))
    pixels = {name: np.concatenate(parts) for name, parts in made.items()}
    return {
        name: Images(found, {"judge": judge.score(found, prompts), "psnr": psnr(found, pixels["uncached"])})
        for name, found in pixels.items()
    }


def measure_speedups(
    generator: Any, schedules: Mapping[str, CacheSchedule], prompts: Sequence[str], hidden: bool
) -> dict[str, float]:
    """How many times faster than uncached a batch is made under each schedule, measured in turns."""
    from ecad.cost.latency import measure_interleaved, speedups

    embeds, seeds = generator.encode(prompts), range(len(prompts))
    runs = {name: partial(generator.generate, embeds, seeds, schedule) for name, schedule in schedules.items()}
    return speedups(
        measure_interleaved(runs, TIMED_ROUNDS, progress=partial(bar, label="timing", hidden=hidden)), "uncached"
    )


def collect(
    study: Any,
    generator: Any,
    schedules: Mapping[str, CacheSchedule],
    judged: Mapping[str, Images],
    ratios: Mapping[str, float],
    prompts: Sequence[str],
    folder: Path,
) -> Results:
    """Everything that the report shows; writes the images that it shows into `folder`."""
    from ecad.cost import macs_table
    from ecad.cost.memory import kept_bytes
    from ecad.genetic.study.export import with_provenance
    from ecad.genetic.study.results import results_of
    from ecad.image_generators.provenance import provenance_for
    from ecad.utils.device import device_name

    architecture, origin, table = generator.architecture, provenance_for(generator), macs_table(generator.architecture)
    entries = []
    for name, schedule in schedules.items():
        kind = "uncached" if name == "uncached" else "found" if name.startswith("found") else "baseline"
        # Against itself an image has no error to speak of.
        scores = {k: _interval(v) for k, v in judged[name].scores.items() if (name, k) != ("uncached", "psnr")}
        if kind == "found":
            schedule = with_provenance(schedule, origin, study, scores, len(prompts))
            latency = {"speedup": ratios[name], "gpu": device_name(generator.pipe.device)}
            schedule = schedule.replace(metrics={**schedule.metrics, "latency": latency})
        macs = int(table.price(schedule.recompute, schedule.forecast))
        images = save_images(folder, name, list(judged[name].pixels[:SHOWN_PROMPTS]))
        entries.append(
            Entry(
                name=name,
                kind=kind,  # type: ignore[arg-type]
                schedule=schedule,
                macs=macs,
                time_ratio=ratios[name],
                scores=scores,
                search_quality=schedule.metrics.get("quality"),
                images=images,
                kept_bytes=kept_bytes(schedule, architecture),
            )
        )
    return replace(
        results_of(study),
        title="Evolved cache schedules of the built-in model",
        generator=GENERATOR,
        pictures=tuple(Picture(prompt, 1000 + i) for i, prompt in enumerate(prompts[:SHOWN_PROMPTS])),
        entries=tuple(entries),
        settings={
            "steps": generator.steps,
            "search prompts": SEARCH_PROMPTS,
            "held-out prompts": len(prompts),
            "seed": study.settings["seed"],
        },
        missing=(),
    )


def _interval(scores: np.ndarray) -> Interval:
    from ecad.quality import mean_interval

    return Interval(float(scores.mean()), *mean_interval(scores))


def _first_look(judged: Mapping[str, Images]) -> Table:
    table = Table("schedule", "judge", title=f"First look: {BATCH} prompts", title_justify="left")
    for name, images in judged.items():
        table.add_row(name, f"{images.scores['judge'].mean():.2f}")
    return table


def _facts(entry: Entry) -> dict[str, Any]:
    scores = {name: {"mean": s.mean, "low": s.low, "high": s.high} for name, s in entry.scores.items()}
    return {
        "name": entry.name,
        "kind": entry.kind,
        "macs": entry.macs,
        "time_ratio": entry.time_ratio,
        "scores": scores,
    }


if __name__ == "__main__":
    main(demo)
