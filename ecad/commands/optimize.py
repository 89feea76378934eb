"""`ecad optimize`: search for cache schedules of an image generator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from ecad import builtin
from ecad.commands.main import finish, main
from ecad.commands.options import ImageGeneratorOption, ModelOptions, WorkerOptions, finite, grouped_options
from ecad.commands.progress import search_progress
from ecad.commands.resume import recall, remember
from ecad.errors import EcadError
from ecad.prompts import Prompt, read_prompts
from ecad.utils.console import bar, console, say
from ecad.utils.files import output_folder

if TYPE_CHECKING:
    from ecad.genetic.evaluation.pool import ImageSet
    from ecad.genetic.evaluation.workers import ProblemSettings, SearchSetup
    from ecad.genetic.held_out import HeldOut
    from ecad.genetic.problem import Problem
    from ecad.genetic.run import Progress
    from ecad.genetic.study.study import Candidate, Study
    from ecad.schedules import CacheSchedule

# By psnr, more images per candidate than this add little (docs/search.md).
ENOUGH_IMAGES = 16
# The seeds of the search count from 0.
HELD_OUT_SEED, VALIDATION_SEED = 1_000_000, 2_000_000
SEARCH_PROMPTS, VALIDATION_PROMPTS, HELD_OUT_PROMPTS = 4, 8, 24


@dataclass(frozen=True)
class ImageSets:
    """What is scored, by disjoint prompts.

    Args:
        search: the images that candidates are scored on.
        validation: those that select what is exported; None if there are no prompts for it.
        held_out: one entry per scorer; nothing is selected by them.
    """

    search: ImageSet
    validation: ImageSet | None
    held_out: list[ImageSet]

    def all(self) -> list[ImageSet]:
        """The search's, then the held-out ones, then that of the validation."""
        return [self.search, *self.held_out, *([self.validation] if self.validation else [])]


@dataclass(frozen=True)
class ScoringOptions:
    """The flags that say which images are made and how they are scored."""

    prompt_file: Annotated[
        Path | None, typer.Option(help="Prompts of the search; by default built-in ones, with a built-in model.")
    ] = None
    num_prompts: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="How many of the prompts search; the next ones validate, which selects what is exported, and those "
            "after them are held out. By default a prompt file searches with all; of the built-in ones 4 do.",
        ),
    ] = None
    num_images_per_prompt: Annotated[int, typer.Option(min=1, help="Images per prompt; their seeds count from 0.")] = 1
    quality: Annotated[
        str,
        typer.Option(
            help="Scorer to maximise. psnr, ssim: similarity to the uncached image; image_reward, clip, pick, judge: "
            "quality for the prompt; a+b: sum of two."
        ),
    ] = "psnr"
    second_quality: Annotated[
        str | None, typer.Option(help="Second scorer for the held-out images, to detect overfitting to the first.")
    ] = None
    held_out_file: Annotated[
        Path | None,
        typer.Option(help="Held-out prompts to score the front on; by default built-in ones, with a built-in model."),
    ] = None
    batch_size: Annotated[int, typer.Option(min=1, help="Images per batch.")] = 8

    def image_sets(self, image_generator: str) -> ImageSets:
        """The images of the search, those that validate, and the held-out ones for each scorer."""
        from ecad.genetic.evaluation.pool import ImageSet

        searching, validating, rest = self._split(self._prompts(image_generator))
        search = ImageSet(searching, range(self.num_images_per_prompt), self.quality)
        validation = ImageSet(validating, [VALIDATION_SEED], self.quality) if validating else None
        held_out = self._held_out(image_generator) or rest[:HELD_OUT_PROMPTS]
        scorers = [self.quality, *self._second_scorer(image_generator)] if held_out else []
        return ImageSets(search, validation, [ImageSet(held_out, [HELD_OUT_SEED], scorer) for scorer in scorers])

    def _prompts(self, image_generator: str) -> list[Prompt]:
        if self.prompt_file is not None:
            return read_prompts(self.prompt_file)
        if image_generator not in builtin.GENERATORS:
            raise EcadError(f"{image_generator} needs prompts: give a file of them with --prompt-file")
        return [Prompt(f"{i:04d}", text) for i, text in enumerate(builtin.prompts("search"))]

    def _split(self, prompts: list[Prompt]) -> tuple[list[Prompt], list[Prompt], list[Prompt]]:
        """Prompts that search, that validate, and those that are left; disjoint."""
        first = self.num_prompts or (len(prompts) if self.prompt_file else SEARCH_PROMPTS)
        if len(prompts) < first:
            raise EcadError(f"{self.prompt_file}: expected at least {first} prompts, found {len(prompts)}")
        last = first + VALIDATION_PROMPTS
        return prompts[:first], prompts[first:last], prompts[last:] if self.prompt_file else []

    def _held_out(self, image_generator: str) -> list[Prompt]:
        if self.held_out_file is not None:
            return read_prompts(self.held_out_file)
        if self.prompt_file is not None and self.num_prompts is not None:
            return []
        texts = builtin.prompts("held_out")[:HELD_OUT_PROMPTS] if image_generator in builtin.GENERATORS else []
        return [Prompt(f"held_out_{i:04d}", text) for i, text in enumerate(texts)]

    def _second_scorer(self, image_generator: str) -> list[str]:
        """The second scorer; for a built-in model by default the other of its two, whose weights are at hand."""
        second = self.second_quality
        if second is None and image_generator in builtin.GENERATORS:
            second = "psnr" if self.quality == "judge" else "judge"
        if second == self.quality:
            raise EcadError(f"--second-quality: expected another scorer than --quality, found {second!r} twice")
        return [] if second is None else [second]


@dataclass(frozen=True)
class ProblemOptions:
    """The flags that say what a schedule costs and which schedules are allowed."""

    cost: Annotated[str, typer.Option(help="macs, or latency: time measured on this device and added up by site.")] = (
        "macs"
    )
    target_speedup: Annotated[
        float | None,
        typer.Option(
            callback=finite,
            min=1,
            help="Smallest reduction of the cost that is of use, such as 2; the search skips smaller ones.",
        ),
    ] = None
    min_quality: Annotated[
        float | None, typer.Option(callback=finite, help="Lowest quality that is of use; the search skips lower ones.")
    ] = None
    max_cached_mb: Annotated[
        float | None, typer.Option(callback=finite, min=0, help="Memory limit: megabytes of cached features per image.")
    ] = None
    forecast: Annotated[
        bool | None,
        typer.Option(help="Extrapolate reused outputs from the last two computed ones; by default mode fast decides."),
    ] = None

    def settings(self, mode: str) -> ProblemSettings:
        """The same for the library; a mode other than fast extrapolates only if told to."""
        from ecad.genetic.evaluation.workers import ProblemSettings

        if self.cost not in ("macs", "latency"):
            raise EcadError(f"--cost {self.cost!r} is unknown: expected macs or latency")
        forecast: Literal["never", "always", "either"] = "always" if self.forecast else "never"
        if self.forecast is None and mode == "fast":
            forecast = "either"
        max_bytes = None if self.max_cached_mb is None else int(self.max_cached_mb * 1e6)
        return ProblemSettings(self.cost == "latency", forecast, max_bytes)

    def max_cost(self, problem: Problem) -> float | None:
        """The largest cost that reaches the target speed-up."""
        if self.target_speedup is None:
            return None
        most = problem.uncached_cost / self.target_speedup
        if most < problem.cheapest_cost:
            fastest = problem.uncached_cost / problem.cheapest_cost
            raise EcadError(
                f"--target-speedup {self.target_speedup:g}: no schedule reaches it; the largest reduction is "
                f"{fastest:.2f}x"
            )
        return most


@dataclass(frozen=True)
class AlgorithmOptions:
    """The flags that say how the search proceeds and when it ends."""

    mode: Annotated[str, typer.Option(help="fast, or paper: the search as published.")] = "fast"
    population_size: Annotated[
        int | None, typer.Option(min=2, help="Candidates per generation; by default 12, or 72 in mode paper.")
    ] = None
    generations: Annotated[
        int | None, typer.Option(min=1, help="Stop after N generations of the study, the first included.")
    ] = None
    max_minutes: Annotated[
        float | None, typer.Option(callback=finite, min=0, help="Stop after N minutes spent on the study.")
    ] = None
    initial_dir: Annotated[Path | None, typer.Option(help="Folder of schedules to start from.")] = None
    random_start: Annotated[
        bool, typer.Option(help="Mode paper: start from random schedules instead of heuristics.")
    ] = False
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the search.")] = 0
    asynchronous: Annotated[
        bool,
        typer.Option(
            "--asynchronous",
            help="Mode fast: give a worker its next batch at once; results then depend on the workers' speed.",
        ),
    ] = False

    def check(self) -> None:
        """Raise EcadError if the search would never end."""
        if self.generations is None and self.max_minutes is None:
            raise EcadError("give --generations or --max-minutes: the search has no end of its own")

    def initial(self) -> list[CacheSchedule]:
        """The schedules of `initial_dir`."""
        from ecad.schedules.files import load_schedules

        return [] if self.initial_dir is None else [*load_schedules(self.initial_dir).values()]


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
    kind: ProblemOptions,
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
    wanted = kind.settings(algorithm.mode)
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
            study = _search(setup, output_dir, algorithm, kind, initial, on_progress)
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
    kind: ProblemOptions,
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
        max_cost=kind.max_cost(setup.problem),
        min_quality=kind.min_quality,
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
