"""`ecad optimize`: evolve the cache schedules of an image generator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from ecad.commands import ImageGeneratorOption, Weights, bar, console, finish, main, search_progress
from ecad.errors import EcadError
from ecad.execution.command import (
    AddressOption,
    ExecutorOption,
    GpusOption,
    Spread,
    TimeoutOption,
    WorkersOption,
    say,
)
from ecad.files import make_folder
from ecad.prompts import Prompt, read_prompts

if TYPE_CHECKING:
    from ecad.genetic.evaluator import Evaluator
    from ecad.genetic.held_out import HeldOut
    from ecad.genetic.study import Candidate, Study

# Away from the seeds of the search, which count from 0.
HELD_OUT_SEED = 1_000_000


def optimize(
    output_dir: Annotated[
        Path, typer.Option("--output-dir", "-o", help="Folder of the study; goes on if it is there.")
    ],
    image_generator: ImageGeneratorOption = "EmojiImageGenerator",
    prompt_file: Annotated[Path | None, typer.Option(help="Prompts to search with; the built-in ones if none.")] = None,
    num_images_per_prompt: Annotated[int, typer.Option(min=1, help="Seeds of each prompt, from 0.")] = 1,
    quality: Annotated[
        str, typer.Option(help="psnr: likeness to uncached images; judge: likeness to prompts.")
    ] = "psnr",
    mode: Annotated[str, typer.Option(help="fast, or paper: the search as published.")] = "fast",
    population_size: Annotated[
        int | None, typer.Option(min=2, help="Candidates a generation; 12, or 72 in mode paper.")
    ] = None,
    generations: Annotated[int | None, typer.Option(min=1, help="Stop after so many, the first included.")] = None,
    max_minutes: Annotated[float | None, typer.Option(min=0, help="Stop after so long.")] = None,
    target_speedup: Annotated[
        float | None, typer.Option(min=1, help="Find only schedules with so many times fewer MACs, or more.")
    ] = None,
    min_quality: Annotated[float | None, typer.Option(help="Find only schedules of this quality or better.")] = None,
    initial_dir: Annotated[Path | None, typer.Option(help="Folder of schedules to start from.")] = None,
    random_start: Annotated[bool, typer.Option(help="Mode paper: start at random, not from heuristics.")] = False,
    held_out_file: Annotated[
        Path | None, typer.Option(help="Prompts to score the front again with; the built-in ones if none.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images made together.")] = 8,
    seed: Annotated[int, typer.Option(help="Of the search's random choices.")] = 0,
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
    if generations is None and max_minutes is None:
        raise EcadError("give --generations or --max-minutes: the search has no end of its own")
    from ecad.genetic.initial import heuristic_schedules
    from ecad.genetic.pooled import Images, evaluators
    from ecad.genetic.search import search
    from ecad.schedules import CacheSchedule

    prompts = _prompts(image_generator, prompt_file)
    held_out = _held_out(image_generator, held_out_file)
    initial = [CacheSchedule.load(path) for path in _schedule_files(initial_dir)]
    spread = Spread(executor, workers, address, gpus_per_worker, task_timeout)
    make_folder(output_dir)
    images = [Images(prompts, range(num_images_per_prompt)), Images(held_out, [HELD_OUT_SEED])]
    with (
        _live(output_dir, live),
        evaluators(
            spread,
            output_dir,
            images,
            image_generator=image_generator,
            weights=weights,
            device=device,
            quality=quality,  # type: ignore[arg-type]
            batch_size=batch_size,
        ) as (problem, make, pool),
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
                on_progress=on_progress,
            )
        front = study.front()
        for candidate in front:
            candidate.schedule.save(output_dir / "front" / f"{candidate.schedule.name}.json")
        again = _judged(make(1), front, output_dir, as_json) if held_out and front else None
    rows = [_row(study, candidate, quality) for candidate in front]
    entries = {entry.candidate.path: entry for entry in again or []}
    for row, candidate in zip(rows, front, strict=True):
        if entry := entries.get(candidate.path):
            row |= {"held_out": entry.quality, "low": entry.low, "high": entry.high, "beaten_by": entry.beaten_by}
    if not as_json:
        for row in rows:
            console.print(_line(row, quality))
        console.print(_verdict(again))
    for name, reason in study.failures.items():
        say(f"{name}: given up: {reason}")
    result: dict[str, Any] = {"front": rows, "uncached_macs": study.uncached_cost, "failures": study.failures}
    if pool is not None:
        result |= {"workers": pool.summary(), "utilisation": pool.utilisation}
    finish(result, f"{len(front)} schedules in {output_dir / 'front'}", as_json)


def _judged(judge: Evaluator, front: list[Candidate], folder: Path, as_json: bool) -> list[HeldOut]:
    """The front's scores on held-out prompts, but for schedules whose images were given up."""
    from ecad.genetic.evaluator import evaluate_each
    from ecad.genetic.held_out import rescore
    from ecad.genetic.store import Store

    with Store.open(folder) as store:
        scores = evaluate_each(judge, [candidate.schedule for candidate in front], store)
        found = np.array(list(bar(scores, "held-out prompts", as_json, total=len(front))))
    known = np.isfinite(found).all(axis=1)
    kept = [candidate for candidate, is_known in zip(front, known, strict=True) if is_known]
    return rescore(kept, found[known], np.arange(len(judge.prompts)))


@contextmanager
def _live(folder: Path, wanted: bool) -> Iterator[None]:
    """Serve the page of the study, if that is wanted."""
    if not wanted:
        yield
        return
    from ecad.report import check_installed

    check_installed()
    from ecad.report.live import live_page

    with live_page(folder) as url:
        say(f"the search so far: {url}")
        yield


def _row(study: Study, candidate: Candidate, quality: str) -> dict[str, Any]:
    fewer = study.uncached_cost / candidate.cost
    return {"name": candidate.schedule.name, "macs": candidate.cost, "fewer": fewer, quality: candidate.quality}


def _line(row: dict[str, Any], quality: str) -> str:
    line = f"{row['name']}  {row['fewer']:5.2f}x fewer MACs  {quality} {row[quality]:.2f}"
    if "held_out" in row:
        line += f"  held out {row['held_out']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
    return line


def _verdict(again: list[HeldOut] | None) -> str:
    """Whether the prompts of the search and the held-out ones agree on what is worth having."""
    if again is None:
        return "not scored on held-out prompts: give a file of them with --held-out-file"
    beaten = [entry for entry in again if entry.beaten_by is not None]
    if not beaten:
        return "held-out prompts agree: no schedule is worse there than a cheaper one, beyond doubt"
    names = ", ".join(f"{entry.candidate.schedule.name} (by {entry.beaten_by})" for entry in beaten)
    return f"held-out prompts disagree: {len(beaten)} of {len(again)} schedules are beaten by a cheaper one: {names}"


def _prompts(image_generator: str, prompt_file: Path | None) -> list[Prompt]:
    if prompt_file is not None:
        return read_prompts(prompt_file)
    if image_generator != "EmojiImageGenerator":
        raise EcadError(f"{image_generator} needs prompts: give a file of them with --prompt-file")
    from ecad.builtin import prompts

    return [Prompt(f"{i:04d}", text) for i, text in enumerate(prompts("search")[:12])]


def _held_out(image_generator: str, held_out_file: Path | None) -> list[Prompt]:
    if held_out_file is not None:
        return read_prompts(held_out_file)
    if image_generator != "EmojiImageGenerator":
        return []
    from ecad.builtin import prompts

    return [Prompt(f"held_out_{i:04d}", text) for i, text in enumerate(prompts("held_out")[:24])]


def _schedule_files(folder: Path | None) -> list[Path]:
    if folder is None:
        return []
    files = sorted(folder.glob("*.json"))
    if not files:
        raise EcadError(f"{folder}: expected a folder with schedules (*.json), found none")
    return files


if __name__ == "__main__":
    main(optimize)
