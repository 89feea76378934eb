"""`ecad score`: score the images of a folder, ImageReward unless told otherwise."""

from __future__ import annotations

from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer

from ecad.commands.main import finish, main
from ecad.commands.matching import NamingModeOption, images_of, matched_items
from ecad.commands.options import FileMode, ScoreBatch, WorkerOptions, grouped_options
from ecad.errors import EcadError
from ecad.execution.pool import shared_path
from ecad.prompts import PromptFile
from ecad.utils.console import bar, say


@grouped_options
def score(
    *,
    benchmark_prompts: Annotated[Path, typer.Option(help="The prompts that the images were made of.")],
    image_dir: Annotated[Path, typer.Option(help="Images; each folder in it that holds some is scored for itself.")],
    output_subpath: Annotated[
        Path, typer.Option("--output-subpath", "-o", help="File to write in each folder of images.")
    ] = Path("scores.json"),
    image_naming_mode: NamingModeOption = None,
    file_mode: FileMode = None,
    exactly_n_images: Annotated[
        int | None, typer.Option("--exactly-n-images", "-n", min=1, help="Leave out folders with more or fewer.")
    ] = None,
    delete_after: Annotated[bool, typer.Option("--delete-after", help="Delete the images that were scored.")] = False,
    rescore_existing: Annotated[bool, typer.Option("--rescore-existing", help="Score again what has a score.")] = False,
    scorer: Annotated[
        str, typer.Option(help="image_reward, clip, pick, judge; psnr, ssim, lpips: likeness to --reference-dir.")
    ] = "image_reward",
    reference_dir: Annotated[
        Path | None, typer.Option(help="Uncached images, named and foldered as those to score.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="Hub id or local copy of the scorer's weights.")] = None,
    workers: WorkerOptions,
    batch_size: ScoreBatch = 64,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Score images. `total_score` is the mean over prompts of the mean over each prompt's images."""
    prompts = PromptFile(benchmark_prompts, file_mode)  # type: ignore[arg-type]
    pictures = images_of(image_dir)
    from ecad.jobs.score import is_foreign, score_folder
    from ecad.jobs.score_on_workers import score_folders_on
    from ecad.quality import get_scorer

    folders = {place: list(files) for place, files in groupby(sorted(pictures.files), key=lambda file: file.parent)}
    left_out: dict[Path, str] = {}
    for folder, files in folders.items():
        if exactly_n_images is not None and len(files) != exactly_n_images:
            left_out[folder] = f"expected {exactly_n_images} images, found {len(files)}"
        elif is_foreign(folder / output_subpath) and not rescore_existing:
            left_out[folder] = f"{output_subpath} of another program is there; --rescore-existing replaces it"
    for folder, reason in left_out.items():
        say(f"{folder}: left out: {reason}")
    kept = {folder: files for folder, files in folders.items() if folder not in left_out}
    if not kept:
        raise EcadError(f"{image_dir}: expected images to score, found {len(folders)} folders, all left out")
    items = {
        folder: matched_items(image_dir, files, prompts, image_naming_mode or "image_reward", reference_dir)
        for folder, files in kept.items()
    }
    options = {"again": rescore_existing, "delete_after": delete_after, "batch_size": batch_size}
    if workers.in_process:
        chosen = get_scorer(scorer, weights, device)
        _check_reference(scorer, chosen.compares, reference_dir)
        scores = {
            folder: score_folder(
                folder,
                found,
                chosen,
                folder / output_subpath,
                progress=partial(bar, label=folder.name, hidden=as_json),
                **options,  # type: ignore[arg-type]
            )
            for folder, (found, _) in items.items()
        }
    else:
        built_from = {"scorer": scorer, "weights": shared_path(weights), "device": device}
        with workers.open("ecad.jobs.score_on_workers:worker", built_from, image_dir) as pool:
            _check_reference(scorer, pool.facts["compares"], reference_dir)
            scores = score_folders_on(
                pool,
                {folder: found for folder, (found, _) in items.items()},
                output_subpath,
                progress=lambda steps, total: bar(steps, "scoring", hidden=as_json, total=total),
                **options,  # type: ignore[arg-type]
            )
    rows = [
        {
            "folder": str(folder),
            "total_score": scores[folder]["total_score"],
            "num_images": scores[folder]["num_images"],
            "num_prompts": len(scores[folder]["avg_by_prompt"]),
            "num_unmatched": len(unmatched),
        }
        for folder, (_, unmatched) in items.items()
    ]
    lines = [
        f"{row['folder']}: {scorer} {row['total_score']:.4f}, "
        f"{row['num_images']} images of {row['num_prompts']} prompts"
        for row in rows
    ]
    finish(
        {
            "scorer": scorer,
            "folders": rows,
            "left_out": {str(k): v for k, v in left_out.items()},
            "passed_over": dict(pictures.passed_over),
        },
        "\n".join(lines),
        as_json,
    )


def _check_reference(scorer: str, compares: bool, reference_dir: Path | None) -> None:
    if compares != (reference_dir is not None):
        need = "needs the uncached images" if compares else "takes no uncached images"
        raise EcadError(f"scorer {scorer!r} {need}: {'give' if compares else 'leave out'} --reference-dir")


if __name__ == "__main__":
    main(score)
