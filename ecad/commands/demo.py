"""`ecad demo`: searches schedules for the built-in model and reports them, in a few minutes on a laptop's CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.table import Table

from ecad import builtin
from ecad.commands.main import finish, loading, main
from ecad.commands.options import AsJson, finite
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
from ecad.schedules import CacheSchedule
from ecad.utils.console import bar, console, say
from ecad.utils.files import make_folder

if TYPE_CHECKING:
    from ecad.genetic.problem import Problem
    from ecad.genetic.study.study import Candidate, Study
    from ecad.image_generators import ImageGenerator
    from ecad.report.results import Kind

GENERATOR = "EmojiImageGenerator"
SEARCH_PROMPTS = 8
HELD_OUT_PROMPTS = 32
SHOWN_PROMPTS = 6
BATCH = 8
POPULATION = 12
GENERATIONS = 20
TIMED_ROUNDS = 5
# The seeds of the search count from 0.
HELD_OUT_SEED = 1000


@dataclass(frozen=True)
class ScoredImages:
    """The images of one schedule, uint8 (n, height, width, 3), and scorer -> their scores, float (n,)."""

    pixels: np.ndarray
    scores: dict[str, np.ndarray]


def demo(
    output_dir: Annotated[
        Path, typer.Option("--output-dir", "-o", help="Folder of the study, the images and the report.")
    ] = Path("demo"),
    generations: Annotated[int, typer.Option(min=1, help="Generations of the search.")] = GENERATIONS,
    held_out: Annotated[
        int, typer.Option(min=SHOWN_PROMPTS, help="Held-out prompts to score schedules on.")
    ] = HELD_OUT_PROMPTS,
    max_minutes: Annotated[
        float, typer.Option(min=0.0, callback=finite, help="Stop the search after N minutes.")
    ] = 2.5,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the search.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Search for cache schedules of the built-in model and show what they save."""
    if missing := missing_packages():
        say(f"no page and no plots will be drawn: {missing}")
    make_folder(output_dir)
    loading(GENERATOR, as_json)
    from ecad.genetic.baselines import baselines
    from ecad.genetic.evaluation.problems import problem_of
    from ecad.image_generators import get_image_generator

    generator = get_image_generator(GENERATOR, device="cpu")
    problem = problem_of(generator)
    prompts = builtin.prompts("held_out")[:held_out]
    schedules = {"uncached": problem.template, **baselines(problem.template)}
    if not as_json:
        console.print(_first_look(score_schedules(generator, schedules, prompts[:BATCH], "first look", as_json)))
    with search_progress(hidden=as_json) as on_progress:
        study = _search(
            generator,
            replace(problem, forecast="either"),
            output_dir / "study",
            generations=generations,
            max_seconds=60 * max_minutes,
            seed=seed,
            on_progress=on_progress,
        )
    if line := stopped_early(len(study.history), generations, max_minutes, output_dir):
        say(line)
    costs = [int(problem.costs(schedule.recompute[None])[0]) for schedule in schedules.values()]
    schedules |= choose(study.front(), [costs[0] // 1.5, *costs[1:], costs[0] // 6])
    scored = score_schedules(generator, schedules, prompts, "held-out prompts", as_json)
    speedups = measure_speedups(generator, schedules, prompts[:BATCH], as_json)
    results = collect(study, generator, schedules, scored, speedups, prompts, output_dir)
    results.save(output_dir)
    page = None if missing else str(write_report(results, output_dir)[0])
    if missing:
        write_tables(results, output_dir)
    if not as_json:
        console.print(rich_table(results))
    where = f"page: {page}" if page else f"page: {missing}, then ecad report {output_dir}"
    line = f"{headline(results)}\nschedules: {output_dir / 'schedules'}\n{where}"
    finish({"page": page, "entries": [_facts(entry) for entry in results.ordered()]}, line, as_json)


def _search(generator: ImageGenerator, problem: Problem, folder: Path, **settings: Any) -> Study:
    from ecad.genetic.evaluation.image_evaluator import evaluator_of
    from ecad.genetic.search import search

    texts = builtin.prompts("search")[:SEARCH_PROMPTS]
    prompts = [Prompt(f"{i:04d}", text) for i, text in enumerate(texts)]
    evaluator = evaluator_of(generator, prompts, [0], "psnr", BATCH)
    return search(problem, evaluator, folder, population_size=POPULATION, **settings)


def stopped_early(done: int, generations: int, minutes: float, folder: Path) -> str | None:
    """A line if the time limit ended the search before its last generation; None if it did not.

    >>> stopped_early(1, 20, 2.5, Path("demo"))
    'the search stopped after 2.5 minutes, in generation 1 of 20: `ecad demo -o demo --max-minutes 10` resumes it'
    """
    if done >= generations:
        return None
    again = f"`ecad demo -o {folder} --max-minutes {4 * minutes:g}` resumes it"
    return f"the search stopped after {minutes:g} minutes, in generation {done} of {generations}: {again}"


def choose(front: Sequence[Candidate], costs: Sequence[float]) -> dict[str, CacheSchedule]:
    """The best candidate at or below each cost, each candidate once; `front` is cheapest first."""
    chosen: list[Candidate] = []
    for cost in costs:
        affordable = [candidate for candidate in front if candidate.cost <= cost]
        if affordable and affordable[-1] not in chosen:
            chosen.append(affordable[-1])
    return {f"found-{i}": candidate.schedule for i, candidate in enumerate(chosen, start=1)}


def score_schedules(
    generator: ImageGenerator, schedules: Mapping[str, CacheSchedule], prompts: Sequence[str], label: str, hidden: bool
) -> dict[str, ScoredImages]:
    """Make and score one held-out image per prompt under each schedule."""
    from ecad.quality import Judge, psnr

    judge, embeds = Judge(), generator.encode(prompts)
    starts = range(0, len(prompts), BATCH)
    made: dict[str, list[np.ndarray]] = {name: [] for name in schedules}
    for name, start in bar([(name, start) for name in schedules for start in starts], label, hidden):
        places = range(start, min(start + BATCH, len(prompts)))
        seeds = [HELD_OUT_SEED + i for i in places]
        made[name].append(generator.generate(embeds[places], seeds, schedules[name]))
    pixels = {name: np.concatenate(parts) for name, parts in made.items()}
    return {
        name: ScoredImages(found, {"judge": judge.score(found, prompts), "psnr": psnr(found, pixels["uncached"])})
        for name, found in pixels.items()
    }


def measure_speedups(
    generator: ImageGenerator, schedules: Mapping[str, CacheSchedule], prompts: Sequence[str], hidden: bool
) -> dict[str, float]:
    """The speed-up over uncached of a batch under each schedule, measured interleaved."""
    from ecad.cost.latency import measure_interleaved, speedups

    embeds, seeds = generator.encode(prompts), range(len(prompts))
    runs = {name: partial(generator.generate, embeds, seeds, schedule) for name, schedule in schedules.items()}
    draw: Callable[[Iterable[int]], Iterable[int]] = partial(bar, label="timing", hidden=hidden)
    return speedups(measure_interleaved(runs, TIMED_ROUNDS, progress=draw), "uncached")


def collect(
    study: Study,
    generator: ImageGenerator,
    schedules: Mapping[str, CacheSchedule],
    scored: Mapping[str, ScoredImages],
    speedups: Mapping[str, float],
    prompts: Sequence[str],
    folder: Path,
) -> Results:
    """Everything that the report shows; writes the images that it shows into `folder`."""
    from ecad.genetic.study.results import results_of

    found = {name: _with_facts(study, generator, name, schedules[name], scored, speedups) for name in schedules}
    return replace(
        results_of(study),
        title="Cache schedules of the built-in model",
        generator=GENERATOR,
        pictures=tuple(Picture(prompt, HELD_OUT_SEED + i) for i, prompt in enumerate(prompts[:SHOWN_PROMPTS])),
        entries=tuple(
            _entry(generator, name, schedule, scored[name], speedups[name], folder) for name, schedule in found.items()
        ),
        settings={
            "steps": generator.steps,
            "search prompts": SEARCH_PROMPTS,
            "held-out prompts": len(prompts),
            "seed": study.settings["seed"],
        },
        missing=(),
    )


def _with_facts(
    study: Study,
    generator: ImageGenerator,
    name: str,
    schedule: CacheSchedule,
    scored: Mapping[str, ScoredImages],
    speedups: Mapping[str, float],
) -> CacheSchedule:
    """A found schedule with its provenance and measured speed-up; others as they are."""
    if _kind(name) != "found":
        return schedule
    from ecad.genetic.study.export import with_provenance
    from ecad.image_generators.provenance import provenance_for
    from ecad.utils.device import device_name

    images = scored[name]
    schedule = with_provenance(schedule, provenance_for(generator), study, _intervals(name, images), len(images.pixels))
    latency = {"speedup": speedups[name], "gpu": device_name(generator.pipe.device)}
    return schedule.replace(metrics={**schedule.metrics, "latency": latency})


def _entry(
    generator: ImageGenerator, name: str, schedule: CacheSchedule, images: ScoredImages, speedup: float, folder: Path
) -> Entry:
    from ecad.cost import macs_table
    from ecad.cost.memory import kept_bytes

    return Entry(
        name=name,
        kind=_kind(name),
        schedule=schedule,
        macs=int(macs_table(generator.architecture).price(schedule.recompute, schedule.forecast)),
        time_ratio=speedup,
        scores=_intervals(name, images),
        search_quality=schedule.metrics.get("quality"),
        images=save_images(folder, name, list(images.pixels[:SHOWN_PROMPTS])),
        kept_bytes=kept_bytes(schedule, generator.architecture),
    )


def _kind(name: str) -> Kind:
    return "uncached" if name == "uncached" else "found" if name.startswith("found") else "baseline"


def _intervals(name: str, images: ScoredImages) -> dict[str, Interval]:
    from ecad.quality import mean_interval

    # The uncached image has no error against itself.
    return {
        scorer: Interval(float(scores.mean()), *mean_interval(scores))
        for scorer, scores in images.scores.items()
        if (name, scorer) != ("uncached", "psnr")
    }


def _first_look(scored: Mapping[str, ScoredImages]) -> Table:
    table = Table("schedule", "judge", title=f"First look: {BATCH} prompts", title_justify="left")
    for name, images in scored.items():
        table.add_row(name, f"{images.scores['judge'].mean():.2f}")
    return table


def _facts(entry: Entry) -> dict[str, object]:
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
