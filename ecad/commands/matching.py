"""What the commands that score images share: which image is of which prompt, and telling what is of none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ecad.errors import EcadError
from ecad.prompts import PromptFile, match_images
from ecad.utils.console import say

if TYPE_CHECKING:
    from ecad.images.files import Found
    from ecad.jobs.score import Item

NamingModeOption = Annotated[
    str | None, typer.Option(help="Naming mode of the images: image_reward (default), parti, toca, mjhq or coco.")
]
Each = Annotated[bool, typer.Option("--each", help="Give each schedule's subfolder its own result.")]

_SHOWN = 5


class NoMatch(EcadError):
    """A folder has images, but none of any of the prompts."""


def images_of(folder: Path) -> Found:
    """The images of a folder; reports their kinds and what was skipped on stderr.

    Raises:
        EcadError: There is no image.
    """
    from ecad.images.files import find_images

    found = find_images(folder)
    if told := found.told():
        say(told)
    return found


def matched_items(
    root: Path,
    files: Sequence[Path],
    prompts: PromptFile,
    naming_mode: str,
    reference_dir: Path | None = None,
) -> tuple[list[Item], list[Path]]:
    """The images that are of a prompt, with it and with their uncached image; and those of no prompt.

    Raises:
        NoMatch: no image is of a prompt.
        EcadError: an image has no uncached image.
    """
    from ecad.jobs.score import Item

    matched, unmatched = match_images(files, prompts, naming_mode)  # type: ignore[arg-type]
    if not matched:
        raise NoMatch(
            f"{files[0].parent}: expected images of these {len(prompts)} prompts, found none among {len(files)}, such "
            f"as {files[0].name!r}; give the prompt file they were made of and how they are named (--image-naming-mode)"
        )
    if unmatched:
        names = ", ".join(file.name for file in unmatched[:_SHOWN])
        more = f" and {len(unmatched) - _SHOWN} more" if len(unmatched) > _SHOWN else ""
        say(f"{unmatched[0].parent}: {len(unmatched)} of {len(files)} images match no prompt: {names}{more}")
    return [Item(file, prompt, _reference(root, file, reference_dir)) for file, prompt in matched], unmatched


def _reference(root: Path, file: Path, reference_dir: Path | None) -> Path | None:
    """The uncached image: at the same place, or there without the first folder, which names the schedule."""
    if reference_dir is None:
        return None
    place = file.relative_to(root)
    for candidate in (reference_dir / place, reference_dir.joinpath(*place.parts[1:])):
        if candidate.is_file():
            return candidate
    raise EcadError(f"{reference_dir / place}: expected the uncached image of {file}, found none; make it first")
