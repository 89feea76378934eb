"""`ecad score`: score the images of a folder, ImageReward unless told otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ecad.commands.main import finish, loading, main, tell_left_out
from ecad.commands.matching import NamingModeOption, NoMatch, images_of, matched_items
from ecad.commands.options import MOST, AsJson, Device, FileMode, ScoreBatch, WorkerOptions, grouped_options
from ecad.errors import EcadError
from ecad.execution.pool import shared_path
from ecad.prompts import PromptFile
from ecad.quality.names import COMPARING, check_scorer
from ecad.utils.console import bar

if TYPE_CHECKING:
    from ecad.jobs.score import Item

    ItemsByFolder = Mapping[Path, Sequence[Item]]
    Scores = dict[Path, dict[str, object]]


@dataclass(frozen=True)
class ScorerOptions:
    """The flags that say how images are scored."""

    scorer: Annotated[
        str, typer.Option(help="image_reward, clip, pick, judge; psnr, ssim, lpips: similarity to --reference-dir.")
    ] = "image_reward"
    weights: Annotated[str | None, typer.Option(help="Hub id or local copy of the scorer's weights.")] = None
    frames: Annotated[
        int,
        typer.Option(
            min=1, max=MOST, help="Frames of each video, which is one image of them all; the score is their mean."
        ),
    ] = 1
    batch_size: ScoreBatch = 64
    device: Device = "auto"
    rescore_existing: Annotated[bool, typer.Option("--rescore-existing", help="Score all images again.")] = False
    delete_after: Annotated[bool, typer.Option("--delete-after", help="Delete images after they are scored.")] = False

    def check_reference(self, compares: bool, reference_dir: Path | None) -> None:
        """Raise EcadError unless uncached images are given just where the scorer compares with them."""
        if compares != (reference_dir is not None):
            need = "needs the uncached images" if compares else "takes no uncached images"
            raise EcadError(f"scorer {self.scorer!r} {need}: {'give' if compares else 'leave out'} --reference-dir")

    def score_here(self, items: ItemsByFolder, output: Path, hidden: bool) -> Scores:
        """Score folders in this process: folder -> the content of its file `output`."""
        from ecad.jobs.score import score_folder
        from ecad.quality import get_scorer
        from ecad.quality.video import by_frame

        scorer = by_frame(get_scorer(self.scorer, self.weights, self.device), self.frames)
        return {
            folder: score_folder(
                folder,
                found,
                scorer,
                folder / output,
                again=self.rescore_existing,
                delete_after=self.delete_after,
                batch_size=self.batch_size,
                progress=partial(bar, label=str(folder), hidden=hidden),
            )
            for folder, found in items.items()
        }

    def score_on(
        self,
        workers: WorkerOptions,
        items: ItemsByFolder,
        output: Path,
        root: Path,
        hidden: bool,
    ) -> Scores:
        """`score_here`, by workers; `root` is where their failures are logged."""
        from ecad.jobs.score_on_workers import score_folders_on

        arguments = {
            "scorer": self.scorer,
            "weights": shared_path(self.weights),
            "device": self.device,
            "frames": self.frames,
        }
        with workers.open("ecad.jobs.score_on_workers:worker", arguments, root) as pool:
            return score_folders_on(
                pool,
                items,
                output,
                again=self.rescore_existing,
                delete_after=self.delete_after,
                batch_size=self.batch_size,
                progress=lambda steps, total: bar(steps, "scoring", hidden=hidden, total=total),
            )


@grouped_options
def score(
    *,
    benchmark_prompts: Annotated[Path, typer.Option(help="Prompt file of the images.")],
    image_dir: Annotated[Path, typer.Option(help="Folder of images; each subfolder with images is scored separately.")],
    output_subpath: Annotated[
        Path, typer.Option("--output-subpath", "-o", help="Name of the output file in each folder of images.")
    ] = Path("scores.json"),
    image_naming_mode: NamingModeOption = None,
    file_mode: FileMode = None,
    exactly_n_images: Annotated[
        int | None, typer.Option("--exactly-n-images", "-n", min=1, help="Skip folders with another number of images.")
    ] = None,
    reference_dir: Annotated[
        Path | None, typer.Option(help="Folder of uncached images with the same names and subfolders.")
    ] = None,
    scoring: ScorerOptions,
    workers: WorkerOptions,
    as_json: AsJson = False,
) -> None:
    """Score images. `total_score` is the mean over prompts of the mean over each prompt's images."""
    check_scorer(scoring.scorer)
    scoring.check_reference(scoring.scorer in COMPARING, reference_dir)
    prompts = PromptFile(benchmark_prompts, file_mode)  # type: ignore[arg-type]
    pictures = images_of(image_dir)
    folders = {place: list(files) for place, files in groupby(sorted(pictures.files), key=lambda file: file.parent)}
    loading(scoring.scorer, as_json)
    left_out = _left_out(folders, exactly_n_images, output_subpath, scoring.rescore_existing)
    matched = {}
    for folder in [folder for folder in folders if folder not in left_out]:
        try:
            mode = image_naming_mode or "image_reward"
            matched[folder] = matched_items(image_dir, folders[folder], prompts, mode, reference_dir)
        except NoMatch as error:
            if len(folders) == 1:
                raise
            left_out[folder] = str(error).removeprefix(f"{folder}: ")
    tell_left_out(left_out)
    if not matched:
        raise EcadError(f"{image_dir}: expected images to score, found {len(folders)} folders, all left out")
    items = {folder: found for folder, (found, _) in matched.items()}
    if workers.in_process:
        scores = scoring.score_here(items, output_subpath, as_json)
    else:
        scores = scoring.score_on(workers, items, output_subpath, image_dir, as_json)
    rows = [_row(folder, scores[folder], len(unmatched)) for folder, (_, unmatched) in matched.items()]
    lines = [
        f"{row['folder']}: {scoring.scorer} {row['total_score']:.4f}, "
        f"{row['num_images']} images of {row['num_prompts']} prompts"
        for row in rows
    ]
    result = {
        "scorer": scoring.scorer,
        "folders": rows,
        "left_out": {str(folder): reason for folder, reason in left_out.items()},
        "passed_over": dict(pictures.skipped),
    }
    finish(result, "\n".join(lines), as_json)


def _left_out(
    folders: Mapping[Path, Sequence[Path]], num_images: int | None, output: Path, rescore: bool
) -> dict[Path, str]:
    """Folder that is not scored -> why."""
    from ecad.jobs.score import is_foreign

    left_out: dict[Path, str] = {}
    for folder, files in folders.items():
        if num_images is not None and len(files) != num_images:
            left_out[folder] = f"expected {num_images} images, found {len(files)}"
        elif is_foreign(folder / output) and not rescore:
            left_out[folder] = f"{output} of another program is there; --rescore-existing replaces it"
    return left_out


def _row(folder: Path, scores: Mapping[str, Any], num_unmatched: int) -> dict[str, Any]:
    return {
        "folder": str(folder),
        "total_score": scores["total_score"],
        "num_images": scores["num_images"],
        "num_prompts": len(scores["avg_by_prompt"]),
        "num_unmatched": num_unmatched,
    }


if __name__ == "__main__":
    main(score)
