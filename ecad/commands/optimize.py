"""`ecad optimize`: evolve the cache schedules of an image generator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ecad import builtin
from ecad.commands.main import finish, main
from ecad.commands.options import (
    AddressOption,
    ExecutorOption,
    GpusOption,
    ImageGeneratorOption,
    TimeoutOption,
    Weights,
    WorkersOption,
    finite,
)
from ecad.commands.progress import search_progress
from ecad.commands.resume import recall, remember
from ecad.errors import EcadError
from ecad.execution.pool import Spread
from ecad.prompts import Prompt, read_prompts
from ecad.utils.console import bar, console, say
from ecad.utils.files import output_folder

if TYPE_CHECKING:
    from ecad.genetic.genes import Forecast
    from ecad.genetic.held_out import HeldOut
    from ecad.genetic.run import Progress
    from ecad.genetic.study.study import Candidate, Study

# More images a candidate than this tell psnr little more (docs/search.md).
ENOUGH = 16
# Away from the seeds of the search, which count from 0.
HELD_OUT_SEED = 1_000_000


def optimize(
    context: typer.Context,
    output_dir: Annotated[
        Path, typer.Option("--output-dir", "-o", help="Folder of the study; goes on if it is there.")
    ],
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a study that must be there, with the flags it began with.")
    ] = False,
    image_generator: ImageGeneratorOption = "EmojiImageGenerator",
    prompt_file: Annotated[Path | None, typer.Option(help="Prompts to search with; the built-in ones if none.")] = None,
    num_images_per_prompt: Annotated[int, typer.Option(min=1, help="Seeds of each prompt, from 0.")] = 1,
    quality: Annotated[
        str,
        typer.Option(help="psnr, ssim: likeness to uncached images; image_reward, clip, pick, judge; a+b: both."),
    ] = "psnr",
    second_quality: Annotated[
        str | None, typer.Option(help="Score the front's held-out images by this, too: a search may please one scorer.")
    ] = None,
    cost: Annotated[
        str, typer.Option(help="macs, or latency: time measured on this device, added up by site.")
    ] = "macs",
    mode: Annotated[str, typer.Option(help="fast, or paper: the search as published.")] = "fast",
    population_size: Annotated[
        int | None, typer.Option(min=2, help="Candidates a generation; 12, or 72 in mode paper.")
    ] = None,
    generations: Annotated[int | None, typer.Option(min=1, help="Stop after so many, the first included.")] = None,
    max_minutes: Annotated[float | None, typer.Option(callback=finite, min=0, help="Stop after N minutes.")] = None,
    target_speedup: Annotated[
        float | None,
        typer.Option(callback=finite, min=1, help="Find only schedules that cost so many times less, or still less."),
    ] = None,
    min_quality: Annotated[
        float | None, typer.Option(callback=finite, help="Find only schedules of this quality or better.")
    ] = None,
    max_cached_mb: Annotated[
        float | None,
        typer.Option(callback=finite, min=0, help="Keep at most so many megabytes of features of one image."),
    ] = None,
    forecast: Annotated[
        bool | None,
        typer.Option(help="Forecast what is reused from the last two outputs; mode fast finds out when."),
    ] = None,
    initial_dir: Annotated[Path | None, typer.Option(help="Folder of schedules to start from.")] = None,
    random_start: Annotated[bool, typer.Option(help="Mode paper: start at random, not from heuristics.")] = False,
    held_out_file: Annotated[
        Path | None, typer.Option(help="Prompts to score the front again with; the built-in ones if none.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images made together.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the search.")] = 0,
    asynchronous: Annotated[
        bool, typer.Option("--asynchronous", help="Mode fast: wait for no worker; no two runs come out the same.")
    ] = False,
    executor: ExecutorOption = "local",
    workers: WorkersOption = None,
    address: AddressOption = None,
    gpus_per_worker: GpusOption = None,
    task_timeout: TimeoutOption = 3600,
    weights: Weights = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    live: Annotated[bool, typer.Option("--live", help="Show the search in a browser while it runs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the front as JSON.")] = False,
) -> None:
    """Evolve cache schedules into a front of cost against quality."""
    if resume:
        context.invoke(optimize, context, **recall(context, output_dir))
        return
    if generations is None and max_minutes is None:
        raise EcadError("give --generations or --max-minutes: the search has no end of its own")
    if cost not in ("macs", "latency"):
        raise EcadError(f"--cost {cost!r} is unknown: expected macs or latency")
    from ecad.genetic.algorithms.spaced_steps import heuristic_schedules
    from ecad.genetic.evaluation.workers import Images, evaluators
    from ecad.genetic.held_out import judge, scores_of
    from ecad.genetic.search import search
    from ecad.genetic.study.export import handed_out, save_front, with_provenance
    from ecad.genetic.study.layout import FRONT
    from ecad.schedules import CacheSchedule

    prompts = _prompts(image_generator, prompt_file)
    held_out = _held_out(image_generator, held_out_file)
    each = len(prompts) * num_images_per_prompt
    if quality == "psnr" and mode == "fast" and each > ENOUGH:
        say(f"each candidate makes {each} images; 2 to {ENOUGH} tell schedules apart by psnr (docs/search.md)")
    initial = [CacheSchedule.load(path) for path in _schedule_files(initial_dir)]
    spread = Spread(executor, workers, address, gpus_per_worker, task_timeout)
    scorers = [quality, *_second(image_generator, quality, second_quality)] if held_out else []
    images = [Images(prompts, range(num_images_per_prompt), quality)]
    images += [Images(held_out, [HELD_OUT_SEED], scorer) for scorer in scorers]
    with (
        output_folder(output_dir),
        _live(output_dir, live),
        evaluators(
            spread,
            output_dir,
            images,
            image_generator=image_generator,
            weights=weights,
            device=device,
            batch_size=batch_size,
            timed=cost == "latency",
            forecast=_forecast(mode, forecast),
            max_cached_bytes=None if max_cached_mb is None else int(max_cached_mb * 1e6),
        ) as (problem, make, origin, pool),
    ):
        if mode == "paper" and not initial and not random_start:
            initial = heuristic_schedules(problem, population_size)
        with search_progress(hidden=as_json, status=pool.status if pool else None) as on_progress:
            study = search(
                problem,
                make(0),
                output_dir,
                mode=mode,  # type: ignore[arg-type]
                generations=generations,
                max_seconds=None if max_minutes is None else 60 * max_minutes,
                population_size=population_size,
                seed=seed,
                initial=initial,
                max_cost=None if target_speedup is None else problem.uncached_cost / target_speedup,
                min_quality=min_quality,
                asynchronous=asynchronous,
                on_progress=_remembering(context, output_dir, on_progress),
            )
        front = handed_out(study.front())
        draw = partial(bar, hidden=as_json)
        judged = {
            name: judge(make(place), front, output_dir, draw) for place, name in enumerate(scorers, start=1) if front
        }
        known = [with_provenance(one.schedule, origin, study, scores_of(one, judged), len(held_out)) for one in front]
        save_front(known, output_dir)
    rows = [_row(study, candidate, judged) for candidate in front]
    if not as_json:
        for row in rows:
            console.print(_line(row, quality))
        for line in _verdicts(judged):
            console.print(line)
    for name, reason in study.failures.items():
        say(f"{name}: given up: {reason}")
    result: dict[str, Any] = {
        "front": rows,
        f"uncached_{study.unit.lower()}": study.uncached_cost,
        "failures": study.failures,
    }
    if pool is not None:
        result |= {"workers": pool.summary(), "utilisation": pool.utilisation}
    finish(result, f"{len(front)} schedules in {output_dir / FRONT}", as_json)


def _forecast(mode: str, wanted: bool | None) -> Forecast:
    if wanted is None:
        return "either" if mode == "fast" else "never"
    return "always" if wanted else "never"


def _remembering(context: typer.Context, folder: Path, show: Callable[[Progress], None]) -> Callable[[Progress], None]:
    """Keep the flags once the first candidate is there: a mistake among them must leave nothing behind."""
    kept = False

    def told(now: Progress) -> None:
        nonlocal kept
        if not kept:
            remember(context, folder)
        kept = True
        show(now)

    return told


def _second(image_generator: str, quality: str, second: str | None) -> list[str]:
    """The second scorer: the one asked for; for a built-in model, whose scorers are at hand, the other of its two."""
    if second is None and image_generator in builtin.GENERATORS:
        second = "psnr" if quality == "judge" else "judge"
    if second == quality:
        raise EcadError(f"--second-quality: expected another scorer than --quality, found {quality!r} twice")
    return [] if second is None else [second]


def _row(study: Study, candidate: Candidate, judged: Mapping[str, Sequence[HeldOut]]) -> dict[str, Any]:
    fewer = study.uncached_cost / candidate.cost
    row = {"name": candidate.schedule.name, study.unit.lower(): candidate.cost, "fewer": fewer}
    row[study.settings["scorer"]] = candidate.quality
    row["held_out"] = {
        name: {"mean": entry.quality, "low": entry.low, "high": entry.high, "beaten_by": entry.beaten_by}
        for name, entries in judged.items()
        for entry in entries
        if entry.candidate.path == candidate.path
    }
    return row


def _line(row: dict[str, Any], quality: str) -> str:
    less = "fewer MACs" if "macs" in row else "less time"
    line = f"{row['name']}  {row['fewer']:5.2f}x {less}  {quality} {row[quality]:.2f}  held out:"
    found = [f"{name} {e['mean']:.2f} [{e['low']:.2f}, {e['high']:.2f}]" for name, e in row["held_out"].items()]
    return f"{line} {', '.join(found) or 'not scored'}"


def _verdicts(judged: Mapping[str, Sequence[HeldOut]]) -> Iterator[str]:
    """Whether the prompts of the search and the held-out ones agree on what is worth having."""
    if not judged:
        yield "not scored on held-out prompts: give a file of them with --held-out-file"
    for name, entries in judged.items():
        beaten = [entry for entry in entries if entry.beaten_by is not None]
        if beaten:
            names = ", ".join(f"{entry.candidate.schedule.name} (by {entry.beaten_by})" for entry in beaten)
            share = f"{len(beaten)} of {len(entries)} schedules"
            yield f"held-out {name} disagrees: {share} are beaten by a cheaper one: {names}"
        else:
            yield f"held-out {name} agrees: no schedule is worse there than a cheaper one, beyond doubt"


@contextmanager
def _live(folder: Path, wanted: bool) -> Iterator[None]:
    """Serve the page of the study, if that is wanted."""
    if not wanted:
        yield
        return
    from ecad.report import check_installed

    check_installed()
    from ecad.genetic.live import live_page

    with live_page(folder) as url:
        say(f"the search so far: {url}")
        yield


def _prompts(image_generator: str, prompt_file: Path | None) -> list[Prompt]:
    if prompt_file is not None:
        return read_prompts(prompt_file)
    if image_generator not in builtin.GENERATORS:
        raise EcadError(f"{image_generator} needs prompts: give a file of them with --prompt-file")
    return [Prompt(f"{i:04d}", text) for i, text in enumerate(builtin.prompts("search")[:4])]


def _held_out(image_generator: str, held_out_file: Path | None) -> list[Prompt]:
    if held_out_file is not None:
        return read_prompts(held_out_file)
    if image_generator not in builtin.GENERATORS:
        return []
    return [Prompt(f"held_out_{i:04d}", text) for i, text in enumerate(builtin.prompts("held_out")[:24])]


def _schedule_files(folder: Path | None) -> list[Path]:
    if folder is None:
        return []
    files = sorted(folder.glob("*.json"))
    if not files:
        raise EcadError(f"{folder}: expected a folder with schedules (*.json), found none")
    return files


if __name__ == "__main__":
    main(optimize)
