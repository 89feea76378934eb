"""`ecad optimize`: search for cache schedules of an image generator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ecad.commands.main import finish, main
from ecad.commands.options import ImageGeneratorOption, ModelOptions, WorkerOptions, grouped_options
from ecad.commands.progress import search_progress
from ecad.commands.resume import recall, remember
from ecad.commands.search_options import AlgorithmOptions, ImageSets, ProblemOptions, ScoringOptions
from ecad.utils.console import bar, console, say
from ecad.utils.files import output_folder

if TYPE_CHECKING:
    from ecad.genetic.evaluation.workers import SearchSetup
    from ecad.genetic.held_out import HeldOut
    from ecad.genetic.run import Progress
    from ecad.genetic.study.study import Candidate, Study
    from ecad.schedules import CacheSchedule

# By psnr, more images per candidate than this add little (docs/search.md).
ENOUGH_IMAGES = 16


@grouped_options
def optimize(
    *,
    context: typer.Context,
    output_dir: Annotated[Path, typer.Option("--output-dir", "-o", help="Study folder. An existing study is resumed.")],
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume an existing study with the flags that it began with.")
    ] = False,
    image_generator: ImageGeneratorOption = "EmojiImageGenerator",
    scoring: ScoringOptions,
    problem: ProblemOptions,
    algorithm: AlgorithmOptions,
    workers: WorkerOptions,
    model: ModelOptions,
    live: Annotated[bool, typer.Option("--live", help="Show the search in a browser while it runs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the front as JSON.")] = False,
) -> None:
    """Search for cache schedules: a Pareto front of cost against quality."""
    if resume:
        optimize(context=context, **recall(context, output_dir))
        return
    algorithm.check()
    model.check(image_generator)
    wanted = problem.settings(algorithm.mode)
    from ecad.genetic.evaluation.workers import ModelSettings, search_setup
    from ecad.genetic.study.layout import FRONT

    images = scoring.image_sets(image_generator)
    each = len(images.search.prompts) * len(images.search.seeds)
    if scoring.quality == "psnr" and algorithm.mode == "fast" and each > ENOUGH_IMAGES:
        say(f"each candidate makes {each} images; 2 to {ENOUGH_IMAGES} rank schedules well by psnr (docs/search.md)")
    initial = algorithm.initial()
    chosen = ModelSettings(image_generator, model.weights, model.device, scoring.batch_size)
    with (
        output_folder(output_dir),
        _live(output_dir) if live else nullcontext(),
        search_setup(workers, output_dir, images.all(), chosen, wanted) as setup,
    ):
        with search_progress(as_json, setup.executor.status if setup.executor else None) as show:
            on_progress = _remembering(context, output_dir, show)
            study = _search(setup, output_dir, algorithm, problem, initial, on_progress)
        front, held_out = _export(study, setup, images, output_dir, as_json)
    rows = [_row(study, candidate, held_out) for candidate in front]
    if not as_json:
        for line in (*(_line(row, scoring.quality) for row in rows), *_held_out_lines(held_out)):
            console.print(line)
    for name, reason in study.failures.items():
        say(f"{name}: given up: {reason}")
    result: dict[str, Any] = {
        "front": rows,
        f"uncached_{study.unit.lower()}": study.uncached_cost,
        "failures": study.failures,
    }
    if setup.executor is not None:
        result |= {"workers": setup.executor.summary(), "utilisation": setup.executor.utilisation}
    finish(result, f"{len(front)} schedules in {output_dir / FRONT}", as_json)


def _search(
    setup: SearchSetup,
    folder: Path,
    algorithm: AlgorithmOptions,
    problem: ProblemOptions,
    initial: list[CacheSchedule],
    on_progress: Callable[[Progress], None],
) -> Study:
    from ecad.genetic.algorithms.spaced_steps import heuristic_schedules
    from ecad.genetic.search import search
    from ecad.genetic.settings import Mode

    if algorithm.mode == "paper" and not initial and not algorithm.random_start:
        initial = heuristic_schedules(setup.problem, algorithm.population_size)
    return search(
        setup.problem,
        setup.evaluator(0),
        folder,
        mode=cast(Mode, algorithm.mode),
        generations=algorithm.generations,
        max_seconds=None if algorithm.max_minutes is None else 60 * algorithm.max_minutes,
        population_size=algorithm.population_size,
        seed=algorithm.seed,
        initial=initial,
        max_cost=problem.max_cost(setup.problem),
        min_quality=problem.min_quality,
        asynchronous=algorithm.asynchronous,
        on_progress=on_progress,
    )


def _export(
    study: Study, setup: SearchSetup, images: ImageSets, folder: Path, hidden: bool
) -> tuple[list[Candidate], dict[str, list[HeldOut]]]:
    """Select by validation, score on held-out images and write schedules; returns them and scorer -> scores."""
    from ecad.genetic.held_out import held_out_intervals, score_held_out
    from ecad.genetic.study.export import front_of, save_front, with_provenance
    from ecad.genetic.study.layout import FRONT_FILE

    draw = partial(bar, hidden=hidden)
    front = _selected(study, setup, images, draw)
    scored = {
        one.quality: score_held_out(setup.evaluator(place), front, folder, draw)
        for place, one in enumerate(images.held_out, start=1)
        if front
    }
    count = len(images.held_out[0].prompts) if images.held_out else 0
    intervals = [held_out_intervals(one, scored) for one in front]
    known = [
        with_provenance(one.schedule, setup.provenance, study, found, count)
        for one, found in zip(front, intervals, strict=True)
    ]
    save_front(known, folder)
    if front:
        validated = len(images.validation.prompts) if images.validation else 0
        front_of(study, front, known, intervals, validated).save(folder / FRONT_FILE)
    return front, scored


def _selected(study: Study, setup: SearchSetup, images: ImageSets, draw: Any) -> list[Candidate]:
    from ecad.genetic.selection import SPEEDUPS, near_front, select_by_validation
    from ecad.genetic.study.export import select_for_export

    if images.validation is None or study.settings["mode"] != "fast":
        return select_for_export(study.front())
    most = study.settings.get("max_cost")
    speedups = [*SPEEDUPS, *([] if most is None else [study.uncached_cost / most])]
    validation = setup.evaluator(len(images.held_out) + 1)
    return select_by_validation(near_front(study, speedups), setup.fit, validation, draw)


def _remembering(context: typer.Context, folder: Path, show: Callable[[Progress], None]) -> Callable[[Progress], None]:
    """Store the flags after the first candidate: a mistake among them must leave nothing behind."""
    stored = False

    def on_progress(now: Progress) -> None:
        nonlocal stored
        if not stored:
            remember(context, folder)
        stored = True
        show(now)

    return on_progress


def _row(study: Study, candidate: Candidate, held_out: Mapping[str, Sequence[HeldOut]]) -> dict[str, Any]:
    fewer = study.uncached_cost / candidate.cost
    row = {"name": candidate.schedule.name, study.unit.lower(): candidate.cost, "fewer": fewer}
    row[study.settings["scorer"]] = candidate.quality
    row["held_out"] = {
        name: {"mean": entry.quality, "low": entry.low, "high": entry.high, "beaten_by": entry.dominated_by}
        for name, entries in held_out.items()
        for entry in entries
        if entry.candidate.path == candidate.path
    }
    return row


def _line(row: dict[str, Any], quality: str) -> str:
    what = "MAC reduction" if "macs" in row else "less time"
    line = f"{row['name']}  {row['fewer']:5.2f}× {what}  {quality} {row[quality]:.2f}  held out:"
    found = [f"{name} {e['mean']:.2f} [{e['low']:.2f}, {e['high']:.2f}]" for name, e in row["held_out"].items()]
    return f"{line} {', '.join(found) or 'not scored'}"


def _held_out_lines(held_out: Mapping[str, Sequence[HeldOut]]) -> Iterator[str]:
    """Whether the held-out images confirm that no schedule of the front is dominated."""
    if not held_out:
        yield "not scored on held-out prompts: give a file of them with --held-out-file"
    for name, entries in held_out.items():
        dominated = [entry for entry in entries if entry.dominated_by is not None]
        if dominated:
            names = ", ".join(f"{entry.candidate.schedule.name} (by {entry.dominated_by})" for entry in dominated)
            share = f"{len(dominated)} of {len(entries)} schedules {'is' if len(dominated) == 1 else 'are'}"
            yield f"Held-out {name}: {share} dominated by a cheaper one: {names}"
        else:
            yield f"Held-out {name}: no schedule is significantly worse than a cheaper one (95%)"


@contextmanager
def _live(folder: Path) -> Iterator[None]:
    """Serve the page of the study."""
    from ecad.report import check_installed

    check_installed()
    from ecad.genetic.live import live_page

    with live_page(folder) as url:
        say(f"the search so far: {url}")
        yield


if __name__ == "__main__":
    main(optimize)
