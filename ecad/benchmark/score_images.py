"""`ecad score`: score the images of a folder, ImageReward unless told otherwise."""

from __future__ import annotations

from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer

from ecad.benchmark.scoring import FileModeOption, NamingModeOption, matched_items, tell
from ecad.commands import bar, finish, main
from ecad.errors import EcadError
from ecad.prompts import read_prompts


def score(
    benchmark_prompts: Annotated[Path, typer.Option(help="The prompts that the images were made of.")],
    image_dir: Annotated[Path, typer.Option(help="Images; each folder in it that holds some is scored for itself.")],
    output_subpath: Annotated[
        Path, typer.Option("--output-subpath", "-o", help="File to write in each folder of images.")
    ] = Path("scores.json"),
    image_naming_mode: NamingModeOption = None,
    file_mode: FileModeOption = None,
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
    batch_size: Annotated[int, typer.Option("--batch-size", "-b", min=1, help="Images scored together.")] = 64,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Score images for their prompts; writes `total_score`, the mean over prompts of the mean over their images."""
    prompts = read_prompts(benchmark_prompts, file_mode)  # type: ignore[arg-type]
    from ecad.quality import get_scorer
    from ecad.quality.folder_scores import is_foreign, score_folder
    from ecad.quality.images import image_files

    folders = {
        place: list(files) for place, files in groupby(sorted(image_files(image_dir)), key=lambda file: file.parent)
    }
    left_out: dict[Path, str] = {}
    for folder, files in folders.items():
        if exactly_n_images is not None and len(files) != exactly_n_images:
            left_out[folder] = f"expected {exactly_n_images} images, found {len(files)}"
        elif is_foreign(folder / output_subpath) and not rescore_existing:
            left_out[folder] = f"{output_subpath} of another program is there; --rescore-existing replaces it"
    for folder, reason in left_out.items():
        tell(f"{folder}: left out: {reason}")
    kept = {folder: files for folder, files in folders.items() if folder not in left_out}
    if not kept:
        raise EcadError(f"{image_dir}: expected images to score, found {len(folders)} folders, all left out")
    items = {
        folder: matched_items(image_dir, files, prompts, image_naming_mode or "image_reward", reference_dir)
        for folder, files in kept.items()
    }
    chosen = get_scorer(scorer, weights, device)
    if chosen.compares != (reference_dir is not None):
        need = "needs the uncached images" if chosen.compares else "takes no uncached images"
        raise EcadError(f"scorer {scorer!r} {need}: {'give' if chosen.compares else 'leave out'} --reference-dir")
    rows = []
    for folder, (found, unmatched) in items.items():
        scores = score_folder(
            folder,
            found,
            chosen,
            folder / output_subpath,
            again=rescore_existing,
            delete_after=delete_after,
            batch_size=batch_size,
            progress=partial(bar, label=folder.name, hidden=as_json),
        )
        rows.append(
            {
                "folder": str(folder),
                "total_score": scores["total_score"],
                "num_images": scores["num_images"],
                "num_prompts": len(scores["avg_by_prompt"]),
                "num_unmatched": len(unmatched),
            }
        )
    lines = [
        f"{row['folder']}: {scorer} {row['total_score']:.4f}, "
        f"{row['num_images']} images of {row['num_prompts']} prompts"
        for row in rows
    ]
    finish(
        {"scorer": scorer, "folders": rows, "left_out": {str(k): v for k, v in left_out.items()}},
        "\n".join(lines),
        as_json,
    )


if __name__ == "__main__":
    main(score)
