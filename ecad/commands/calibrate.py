"""`ecad calibrate`: a front of schedules from a handful of images, without a search."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ecad import builtin
from ecad.commands.main import finish, interruptible, loading, main
from ecad.commands.options import (
    MOST,
    AsJson,
    FileMode,
    ImageGeneratorOption,
    ModelOptions,
    Overwrite,
    finite,
    grouped_options,
)
from ecad.errors import EcadError
from ecad.prompts import read_prompts
from ecad.utils.console import console, say, share_bar
from ecad.utils.files import check_unused
from ecad.utils.seeds import check_seeds

if TYPE_CHECKING:
    from ecad.schedules.front import Front


@grouped_options
def calibrate(
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Output file (a front, JSON).")] = Path("front.json"),
    image_generator: ImageGeneratorOption = "EmojiImageGenerator",
    prompt_file: Annotated[Path | None, typer.Option(help="Prompt file; default: the built-in prompts.")] = None,
    file_mode: FileMode = None,
    num_prompts: Annotated[
        int,
        typer.Option(
            min=2,
            max=MOST,
            help="Number of prompts: the first half for fitting, the other half for validation.",
        ),
    ] = 8,
    held_out: Annotated[
        int, typer.Option(min=0, help="Number of held-out prompts, after these, that score the front.")
    ] = 8,
    max_images: Annotated[
        float | None,
        typer.Option(
            callback=finite, min=1, help="Budget in uncached images, to move computed steps; default: none are moved."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Noise seed of the first image.")] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the expected number of images and minutes, and exit.")
    ] = False,
    overwrite: Overwrite = False,
    model: ModelOptions,
    as_json: AsJson = False,
) -> None:
    """Calibrate schedules for many speed-ups, without a search: the first thing to run on a model."""
    model.check(image_generator)
    check_seeds([seed])
    check_unused(output, overwrite or dry_run)
    prompts, judges = _prompts(image_generator, prompt_file, file_mode, num_prompts, held_out)
    loading(image_generator, as_json)
    from ecad.calibration.of_generator import calibrated_front, planned

    generator = model.load(image_generator)
    if dry_run:
        images, seconds = planned(generator, prompts, seed=seed, max_images=max_images)
        line = f"at most {images:.0f} images' work, {seconds / 60:.1f} minutes, and {len(judges)} held-out prompts"
        finish({"images": images, "seconds": seconds, "held_out_prompts": len(judges)}, line, as_json)
        return
    with interruptible("a calibration keeps nothing before its end"), share_bar("calibrating", as_json) as on_progress:
        front = calibrated_front(generator, prompts, judges, seed=seed, max_images=max_images, on_progress=on_progress)
    front.save(output)
    _show(front, output, as_json)


def _show(front: Front, output: Path, as_json: bool) -> None:
    """Print a front, a line for each schedule."""
    rows = [
        {
            "name": point.schedule.name,
            "speedup": point.speedup,
            "quality": point.quality,
            "held_out": {name: vars(found) for name, found in point.held_out.items()},
        }
        for point in front.points
    ]
    if not as_json:
        for point in front.points:
            scores = [f"{x.mean:.1f} [{x.low:.1f}, {x.high:.1f}]" for x in point.held_out.values()]
            line = f"{point.speedup:5.2f}×  psnr {point.quality:.1f} dB  held out: {', '.join(scores) or 'not scored'}"
            console.print(line, highlight=False)
    result = {"front": rows, "output": str(output), **front.provenance}
    finish(result, f"{len(rows)} schedules, {front.provenance['images']} images: {output}", as_json)


def _prompts(
    image_generator: str, file: Path | None, file_mode: str | None, count: int, held_out: int
) -> tuple[list[str], list[str]]:
    """The prompts to calibrate with, and others to score the front with."""
    if file is None and image_generator not in builtin.GENERATORS:
        raise EcadError(f"{image_generator} needs prompts: give a file of them with --prompt-file")
    read = read_prompts(file, file_mode) if file else []  # type: ignore[arg-type]
    known = [prompt.text for prompt in read] if file else builtin.prompts("search", image_generator)
    if len(known) < count:
        raise EcadError(
            f"{file or image_generator}: expected at least {count} prompts (--num-prompts), found {len(known)}"
        )
    judges = (known[count:] if file else builtin.prompts("held_out", image_generator))[:held_out]
    if len(judges) < held_out:
        say(f"{file or image_generator}: {len(judges)} prompts are left to score the front with, not {held_out}")
    return known[:count], judges


if __name__ == "__main__":
    main(calibrate)
