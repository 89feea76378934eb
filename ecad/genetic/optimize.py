"""`ecad optimize`: evolve the cache schedules of an image generator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ecad.commands import ImageGeneratorOption, Weights, console, finish, main, search_progress
from ecad.errors import EcadError
from ecad.files import make_folder
from ecad.prompts import Prompt, read_prompts


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
    population_size: Annotated[int, typer.Option(min=2, help="Candidates a generation.")] = 72,
    generations: Annotated[int | None, typer.Option(min=1, help="Stop after so many, the first included.")] = None,
    max_minutes: Annotated[float | None, typer.Option(min=0, help="Stop after so long.")] = None,
    initial_dir: Annotated[Path | None, typer.Option(help="Folder of schedules to start from.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images made together.")] = 8,
    seed: Annotated[int, typer.Option(help="Of the search's random choices.")] = 0,
    weights: Weights = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the front as JSON.")] = False,
) -> None:
    """Evolve cache schedules into a front of cost against quality."""
    if generations is None and max_minutes is None:
        raise EcadError("give --generations or --max-minutes: the search has no end of its own")
    from ecad.genetic.of_generator import evaluator_of, problem_of
    from ecad.genetic.search import search
    from ecad.genetic.seeds import step_seeds
    from ecad.image_generators import get_image_generator
    from ecad.schedules import CacheSchedule

    prompts = _prompts(image_generator, prompt_file)
    initial = [CacheSchedule.load(path) for path in _schedule_files(initial_dir)]
    make_folder(output_dir)
    generator = get_image_generator(image_generator, weights, device=device)
    problem, seeds = problem_of(generator), range(num_images_per_prompt)
    evaluator = evaluator_of(generator, prompts, seeds, quality, batch_size)  # type: ignore[arg-type]
    if mode == "fast" and not initial:
        initial = step_seeds(problem, evaluator_of(generator, prompts, seeds, "psnr", batch_size), population_size)
    with search_progress(hidden=as_json) as on_progress:
        study = search(
            problem,
            evaluator,
            output_dir,
            mode=mode,  # type: ignore[arg-type]
            generations=generations,
            max_seconds=None if max_minutes is None else 60 * max_minutes,
            population_size=population_size,
            seed=seed,
            initial=initial,
            on_progress=on_progress,
        )
    front = study.front()
    for candidate in front:
        candidate.schedule.save(output_dir / "front" / f"{candidate.schedule.name}.json")
    if not as_json:
        for candidate in front:
            fewer = study.uncached_cost / candidate.cost
            console.print(f"{candidate.schedule.name}  {fewer:5.2f}x fewer MACs  {quality} {candidate.quality:.3f}")
    rows = [{"name": c.schedule.name, "macs": c.cost, quality: c.quality} for c in front]
    finish(
        {"front": rows, "uncached_macs": study.uncached_cost},
        f"{len(front)} schedules in {output_dir / 'front'}",
        as_json,
    )


def _prompts(image_generator: str, prompt_file: Path | None) -> list[Prompt]:
    if prompt_file is not None:
        return read_prompts(prompt_file)
    if image_generator != "EmojiImageGenerator":
        raise EcadError(f"{image_generator} needs prompts: give a file of them with --prompt-file")
    from ecad.builtin import prompts

    return [Prompt(f"{i:04d}", text) for i, text in enumerate(prompts("search")[:12])]


def _schedule_files(folder: Path | None) -> list[Path]:
    if folder is None:
        return []
    files = sorted(folder.glob("*.json"))
    if not files:
        raise EcadError(f"{folder}: expected a folder with schedules (*.json), found none")
    return files


if __name__ == "__main__":
    main(optimize)
