"""`ecad clip`: the CLIP score of the images in a folder."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from ecad.commands.main import finish, loading, main
from ecad.commands.matching import Each, NamingModeOption, images_of, matched_items
from ecad.commands.options import Device, FileMode, ScoreBatch
from ecad.prompts import PromptFile
from ecad.utils.console import bar


def clip(
    prompts_path: Annotated[Path, typer.Option(help="Prompt file of the images.")],
    image_dir: Annotated[Path, typer.Option("--image-dir", "-i", help="Folder with the images of one schedule.")],
    file_mode: FileMode = None,
    clip_model: Annotated[
        str, typer.Option(help="A name such as ViT-B/32, a hub id, a local folder, or judge (built in).")
    ] = "ViT-B/32",
    image_naming_mode: NamingModeOption = None,
    mjhq: Annotated[bool, typer.Option("--mjhq", help="Use MJHQ's prompts and, by default, its image names.")] = False,
    output_subpath: Annotated[
        Path, typer.Option("--output-subpath", "-o", help="Name of the output file in the folder of images.")
    ] = Path("clip_scores.json"),
    each: Each = False,
    batch_size: ScoreBatch = 64,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Compute the CLIP score: 100 times the cosine of image and prompt, as the mean over prompts."""
    prompts = PromptFile(prompts_path, "mjhq" if mjhq else file_mode)  # type: ignore[arg-type]
    from ecad.images.files import by_schedule

    mode = image_naming_mode or ("mjhq" if mjhq else "image_reward")
    pictures = images_of(image_dir)
    loading(clip_model, as_json)
    from ecad.jobs.score import score_folder
    from ecad.quality import get_scorer

    folders = by_schedule(pictures, each)
    items = {folder: matched_items(folder, files, prompts, mode) for folder, files in folders.items()}
    name, weights = ("judge", None) if clip_model == "judge" else ("clip", clip_model)
    scorer = replace(get_scorer(name, weights, device), name="clip")
    rows: list[dict[str, Any]] = []
    for folder, (found, unmatched) in items.items():
        scores = score_folder(
            folder,
            found,
            scorer,
            folder / output_subpath,
            facts={"clip_model": clip_model, "prompts": str(prompts_path), "num_unmatched": len(unmatched)},
            batch_size=batch_size,
            progress=partial(bar, label=str(folder), hidden=as_json),
        )
        rows.append(
            {
                "folder": str(folder),
                "clip_score": scores["total_score"],
                "num_images": scores["num_images"],
                "num_unmatched": len(unmatched),
                "output": str(folder / output_subpath),
            }
        )
    lines = [
        f"{row['folder']}: CLIP score {row['clip_score']:.4f}, {row['num_images']} images matched, "
        f"{row['num_unmatched']} not"
        for row in rows
    ]
    result = {"clip_model": clip_model, "folders": rows, "passed_over": dict(pictures.skipped)}
    finish(result, "\n".join(lines), as_json)


if __name__ == "__main__":
    main(clip)
