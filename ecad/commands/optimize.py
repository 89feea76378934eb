"""`ecad optimize`: search for cache schedules of an image generator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ecad.commands.main import finish, interruptible, loading, main
from ecad.commands.options import ImageGeneratorOption, ModelOptions, WorkerOptions, grouped_options
from ecad.commands.progress import described, search_progress
from ecad.commands.resume import recall, remember
from ecad.commands.search_options import AlgorithmOptions, ImageSets, ProblemOptions, ScoringOptions, Task
from ecad.commands.search_plan import show_plan
from ecad.errors import EcadError
from ecad.utils.console import bar, console, say
from ecad.utils.files import output_folder

if TYPE_CHECKING:
    from ecad.genetic.evaluation.evaluator import Evaluator
    from ecad.genetic.evaluation.workers import SearchSetup
    from ecad.genetic.held_out import HeldOut
    from ecad.genetic.run import Progress
    from ecad.genetic.searches import Searched
    from ecad.genetic.study.study import Candidate, Study
    from ecad.schedules import CacheSchedule

# By psnr, more images per candidate than this add little (docs/search.md).
ENOUGH_IMAGES = 16

_NO_FRONT = "no schedule was found within the limits: search longer, or relax --target-speedup or --min-quality"


@dataclass
class Told:
    """What the live page says about the search now."""

    text: str = "Running: no candidate yet."


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
    log: Annotated[
        str | None, typer.Option(help="Log progress to tensorboard, mlflow or wandb, if it is installed.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Time one batch, print images, minutes and memory, and end.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the front as JSON.")] = False,
) -> None:
    """Search for cache schedules: a Pareto front of cost against quality."""
    if resume:
        optimize(context=context, **recall(context, output_dir))
        return
    scoring.check(image_generator)
    model.check(image_generator)
    algorithm.check_mode()
    wanted = problem.settings(algorithm.mode)
    searches = max(1, len(wanted.steps))
    _check_shown(live, log, searches)
    algorithm.check_end()
    division = scoring.divided(image_generator, algorithm.max_images, searches)
    budget = algorithm.budget(None if division is None else division.search_images)
    images = scoring.image_sets(image_generator, division)
    initial = algorithm.initial()
    _advise(scoring, algorithm, images)
    loading(image_generator, as_json)
    from ecad.genetic.evaluation.model_settings import ModelSettings
    from ecad.genetic.evaluation.workers import search_setup

    chosen = ModelSettings(image_generator, model.weights, model.device, scoring.batch_size)
    task = Task(images, division, budget, algorithm, problem, initial)
    if dry_run:
        with TemporaryDirectory() as place, search_setup(workers, Path(place), images.all(), chosen, wanted) as setups:
            show_plan(setups, task, as_json)
        return
    told = Told()
    with (
        output_folder(output_dir),
        interruptible(partial(_kept, output_dir)),
        _live(output_dir, told) if live else nullcontext(),
        search_setup(workers, output_dir, images.all(), chosen, wanted) as setups,
    ):
        with _progress(context, output_dir, setups, log, as_json, told) as on_progress:
            searched = _search(setups, output_dir, task, on_progress)
        told.text = "The search is over; its schedules are scored on held-out images."
        front, held_out = _export(searched, task, output_dir, as_json)
    _tell(searched, front, held_out, output_dir, as_json)


def _check_shown(live: bool, log: str | None, searches: int) -> None:
    """Raise EcadError if the progress cannot be shown as is asked."""
    if live and searches > 1:
        raise EcadError("--live shows one search: leave it out, or give one number of --steps")
    if log is not None:
        from ecad.genetic.trackers import imported_tracker

        imported_tracker(log)


def _advise(scoring: ScoringOptions, algorithm: AlgorithmOptions, images: ImageSets) -> None:
    """Say if candidates make more images than they need."""
    each = len(images.search.prompts) * len(images.search.seeds)
    if scoring.quality == "psnr" and algorithm.mode == "fast" and each > ENOUGH_IMAGES:
        say(f"each candidate makes {each} images; 2 to {ENOUGH_IMAGES} rank schedules well by psnr (docs/search.md)")


def _kept(folder: Path) -> str:
    """What an interrupted search leaves, and the command that resumes it."""
    from ecad.genetic.study.layout import DATABASE, FLAGS
    from ecad.genetic.study.study import Study

    if not (folder / FLAGS).exists():
        return f"{folder}: no candidate was complete; run the same command again"
    candidates = images = 0
    for place in sorted(file.parent for file in folder.rglob(DATABASE)):
        with suppress(EcadError), closing(Study.open(place)) as study:  # the next study may not have begun
            candidates += len(study.candidates)
            images += study.images
    return f"{candidates} candidates ({images} images) are kept; `ecad optimize -o {folder} --resume` resumes it"


@contextmanager
def _progress(
    context: typer.Context, folder: Path, setups: Sequence[SearchSetup], log: str | None, hidden: bool, told: Told
) -> Iterator[Callable[[SearchSetup, Progress], None]]:
    """Show and log progress, and store the flags after the first candidate: a mistake among them leaves nothing."""
    from ecad.genetic.trackers import tracker

    pool = setups[0].executor
    now_searched: SearchSetup | None = None

    def status() -> str:
        steps = f"{now_searched.steps} steps" if now_searched and len(setups) > 1 else ""
        return ", ".join(filter(None, [steps, pool.status() if pool else ""]))

    with (
        search_progress(hidden, status if pool or len(setups) > 1 else None) as show,
        tracker(log, folder) if log else nullcontext(lambda now: None) as track,
    ):

        def on_progress(setup: SearchSetup, now: Progress) -> None:
            nonlocal now_searched
            if now_searched is None:
                remember(context, folder)
            now_searched = setup
            told.text = f"Running: {described(now, status)}."
            show(now)
            track(now)

        yield on_progress


def _search(
    setups: Sequence[SearchSetup], folder: Path, task: Task, on_progress: Callable[[SearchSetup, Progress], None]
) -> list[Searched]:
    from ecad.genetic.searches import search_each

    algorithm = task.algorithm
    return search_each(
        setups,
        folder,
        task.budget,
        target_speedup=task.problem.target_speedup,
        initial=task.initial_of,
        on_progress=on_progress,
        mode=algorithm.mode,
        population_size=algorithm.population_size,
        seed=algorithm.seed,
        min_quality=task.problem.min_quality,
        asynchronous=algorithm.asynchronous,
    )


def _export(
    searched: Sequence[Searched], task: Task, folder: Path, hidden: bool
) -> tuple[list[Candidate], dict[str, list[HeldOut]]]:
    """Select by validation, score on held-out images and write schedules; returns them and scorer -> scores."""
    from ecad.genetic.held_out import held_out_intervals, score_held_out
    from ecad.genetic.searches import owner_of
    from ecad.genetic.study.export import front_of, save_front, with_provenance
    from ecad.genetic.study.layout import FRONT_FILE

    draw, images = partial(bar, hidden=hidden), task.images
    front = _selected(searched, task, draw)
    owners = {one.name: owner_of(searched, one) for one in front}

    def judge(place: int, candidate: Candidate) -> tuple[Evaluator, Path]:
        owner = owners[candidate.name]
        return owner.setup.evaluator(place), owner.folder

    scored = {
        one.quality: score_held_out(front, partial(judge, place), draw)
        for place, one in enumerate(images.held_out, start=1)
        if front
    }
    count = len(images.held_out[0].prompts) if images.held_out else 0
    intervals = [held_out_intervals(one, scored) for one in front]
    known = [
        with_provenance(one.schedule, owners[one.name].setup.provenance, owners[one.name].study, found, count)
        for one, found in zip(front, intervals, strict=True)
    ]
    save_front(known, folder)
    if front:
        validated = len(images.validation[0].prompts) if images.validation else 0
        studies = [one.study for one in searched]
        front_of(studies, front, known, intervals, validated).save(folder / FRONT_FILE)
    return front, scored


def _selected(searched: Sequence[Searched], task: Task, draw: Any) -> list[Candidate]:
    from ecad.genetic.searches import joint_candidates, joint_front, owner_of, uncached_cost
    from ecad.genetic.selection import SPEEDUPS, near_front, select_by_validation
    from ecad.genetic.study.export import select_for_export
    from ecad.genetic.study.layout import VALIDATION

    if not task.images.validation or task.algorithm.mode != "fast":
        return select_for_export(joint_front(searched))
    speedups = [*SPEEDUPS, *filter(None, [task.problem.target_speedup])]
    limit = None if task.division is None else task.division.finalists
    finalists = near_front(joint_candidates(searched), uncached_cost(searched), speedups, limit)

    def fit(candidates: Sequence[Candidate]) -> Iterator[CacheSchedule]:
        owners = [owner_of(searched, one).folder for one in candidates]
        fitted = {
            one.folder: iter(
                one.setup.fit([c.plain for c, owner in zip(candidates, owners, strict=True) if owner == one.folder])  # type: ignore[misc]
            )
            for one in searched
        }
        return (next(fitted[owner]) for owner in owners)

    def judge(place: int, candidate: Candidate) -> tuple[Evaluator, Path | None]:
        owner = owner_of(searched, candidate)
        return owner.setup.evaluator(place), owner.folder / VALIDATION

    places = range(len(task.images.held_out) + 1, len(task.images.all()))
    return select_by_validation(
        finalists,
        None if any(one.setup.fit is None for one in searched) else fit,
        [partial(judge, place) for place in places],
        draw,
        float("inf") if task.division is None else task.division.validation_images,
    )


def _tell(
    searched: Sequence[Searched],
    front: Sequence[Candidate],
    held_out: Mapping[str, Sequence[HeldOut]],
    folder: Path,
    as_json: bool,
) -> None:
    """Print the front, and what became of the search."""
    from ecad.genetic.searches import uncached_cost
    from ecad.genetic.study.layout import FRONT

    study, whole = searched[-1].study, uncached_cost(searched)
    rows = [_row(study, whole, candidate, held_out) for candidate in front]
    if not as_json:
        told = _held_out_lines(held_out) if front else [_NO_FRONT]
        for line in (*(_line(row, study.settings["scorer"]) for row in rows), *told):
            console.print(line)
    failures = {f"{one.prefix}{name}": why for one in searched for name, why in one.study.failures.items()}
    for name, reason in failures.items():
        say(f"{name}: given up: {reason}")
    result: dict[str, object] = {"front": rows, f"uncached_{study.unit.lower()}": whole, "failures": failures}
    if len(searched) > 1:
        result["studies"] = [str(one.folder) for one in searched]
    if (pool := searched[0].setup.executor) is not None:
        result |= {"workers": pool.summary(), "utilisation": pool.utilisation}
    finish(result, f"{len(front)} schedules in {folder / FRONT}", as_json)


def _row(
    study: Study, whole: int, candidate: Candidate, held_out: Mapping[str, Sequence[HeldOut]]
) -> dict[str, object]:
    row = {"name": candidate.name, study.unit.lower(): candidate.cost, "fewer": whole / candidate.cost}
    row["rows"] = candidate.plain.num_steps
    row[study.settings["scorer"]] = candidate.quality
    row["held_out"] = {
        name: {"mean": entry.quality, "low": entry.low, "high": entry.high, "beaten_by": entry.dominated_by}
        for name, entries in held_out.items()
        for entry in entries
        if entry.candidate.name == candidate.name
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
def _live(folder: Path, told: Told) -> Iterator[None]:
    """Serve the page of the study."""
    from ecad.report import check_installed

    check_installed()
    from ecad.genetic.live import live_page

    with live_page(folder, state=lambda: told.text) as url:
        say(f"the search so far: {url}")
        yield


if __name__ == "__main__":
    main(optimize)
