"""`ecad infer`: make images of a prompt, a file of prompts or stored embeddings, under a schedule if one is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ecad.commands.main import finish, loading, main, require_exact
from ecad.commands.options import (
    MOST,
    FileMode,
    Guidance,
    ModelOptions,
    Overwrite,
    Pixels,
    RequireExact,
    Steps,
    grouped_options,
)
from ecad.errors import EcadError, OtherResultsError
from ecad.prompts import Prompt, read_prompts
from ecad.utils.console import bar, say
from ecad.utils.files import make_folder
from ecad.utils.seeds import check_seeds

if TYPE_CHECKING:
    from ecad.image_generators import ImageGenerator
    from ecad.jobs.generate import Batch, Job

EMBEDDINGS, IMAGES = "embeddings", "images"


@grouped_options
def infer(
    *,
    image_generator: Annotated[
        str, typer.Argument(help="A name that `ecad models` lists, or any pipeline's folder, hub id or .json.")
    ],
    prompt: Annotated[str | None, typer.Option(help="One prompt.")] = None,
    prompt_file: Annotated[Path | None, typer.Option(help="Prompts: one per line, JSON, or a table.")] = None,
    file_format: FileMode = None,
    input_embeddings: Annotated[Path | None, typer.Option(help="Folder of embeddings instead of prompts.")] = None,
    schedule: Annotated[Path | None, typer.Option(help="Cache schedule.")] = None,
    num_images_per_prompt: Annotated[int, typer.Option(min=1, max=MOST, help="Images per prompt, one seed each.")] = 10,
    batch_size_embedding: Annotated[int, typer.Option(min=1, max=MOST, help="Batch size of encoding.")] = 1,
    batch_size_generate: Annotated[int, typer.Option(min=1, max=MOST, help="Batch size of generation.")] = 1,
    start_seed: Annotated[int, typer.Option(help="Seed of the first image.")] = 0,
    seed_step: Annotated[int, typer.Option(help="Difference between the seeds of consecutive images.")] = 1,
    steps: Steps = None,
    height: Pixels = None,
    width: Pixels = None,
    guidance_scale: Guidance = None,
    output_dir: Annotated[Path, typer.Option(help="Parent of `embeddings` and `images`.")] = Path("outputs"),
    overwrite: Overwrite = False,
    exact: RequireExact = False,
    model: ModelOptions,
    as_json: Annotated[bool, typer.Option("--json", help="Print the files as JSON.")] = False,
) -> None:
    """Generate images from prompts. Earlier images of other prompts or settings are moved to a folder of their own."""
    if exact:
        require_exact()
    _check_source(prompt, prompt_file, input_embeddings)
    seeds = [start_seed + seed_step * i for i in range(num_images_per_prompt)]
    check_seeds((seeds[0], seeds[-1]))
    model.check(image_generator)
    prompts = [Prompt("0000", prompt)] if prompt is not None else _read(prompt_file, file_format)
    from ecad.prompts.store import find_stored
    from ecad.schedules.files import CacheSchedule, in_file

    chosen = None if schedule is None else CacheSchedule.load(schedule)
    found = None if input_embeddings is None else find_stored(input_embeddings)
    make_folder(output_dir)
    loading(image_generator, as_json)
    from ecad.jobs.generate import cut_batches, job_of

    generator = model.load(image_generator, only="images" if found else None)
    asked = {"steps": steps, "guidance_scale": guidance_scale, "height": height, "width": width}
    with in_file(schedule) if schedule else nullcontext():
        job = job_of(generator, chosen, output_dir / IMAGES, **asked)  # type: ignore[arg-type]
    if chosen is not None and steps is None and job.call["steps"] != generator.steps:
        say(f"{job.call['steps']} steps, as {schedule} has; {generator.name} itself has {generator.steps}")
    number = _unused_number(output_dir)
    if found is None:
        encode = partial(_encode, generator, prompts, output_dir / EMBEDDINGS, batch_size_embedding, overwrite, as_json)
        _with_room(encode, number)
        found = find_stored(output_dir / EMBEDDINGS)
    batches = cut_batches(found, seeds, batch_size_generate)
    _with_room(partial(_make, generator, job, batches, output_dir, overwrite, as_json), number)
    files = [str(job.folder / item.file) for batch in batches for item in batch]
    finish({"images": files}, f"{len(files)} images in {job.folder}", as_json)


def _encode(
    generator: ImageGenerator, prompts: list[Prompt], folder: Path, batch_size: int, overwrite: bool, hidden: bool
) -> None:
    """Write the embeddings of prompts into a folder, unless they are there."""
    from ecad.jobs.encode import embed, embedding_settings, num_shards, numbered
    from ecad.prompts.store import stores_to_write

    settings = embedding_settings(generator)
    with stores_to_write(folder, [(".", numbered(prompts))], settings, batch_size, overwrite) as stores:
        list(bar(embed(generator, folder, stores), "encoding", hidden=hidden, total=num_shards(stores)))


def _make(
    generator: ImageGenerator, job: Job, batches: Sequence[Batch], output_dir: Path, overwrite: bool, hidden: bool
) -> None:
    """Make the images of a job that are missing."""
    from ecad.jobs.generate import make_images

    making = make_images(generator, [job], batches, output_dir, overwrite=overwrite)
    list(bar(making, "generating", hidden=hidden, total=len(batches)))


def _unused_number(output_dir: Path) -> int:
    """The first number with which no folder of an earlier run is called."""
    kept = (output_dir / EMBEDDINGS, output_dir / IMAGES)
    return next(n for n in count(1) if not any(_numbered(folder, n).exists() for folder in kept))


def _numbered(folder: Path, number: int) -> Path:
    return folder.with_name(f"{folder.name}_{number}")


def _with_room(work: Callable[[], None], number: int) -> None:
    """Do some work. If a folder of an earlier run is in its way, give that folder a number, say so, and begin again."""
    try:
        work()
    except OtherResultsError as error:
        folder = Path(error.folder)
        place = _numbered(folder, number)
        try:
            folder.rename(place)
        except OSError as failure:
            raise EcadError(f"{folder}: cannot be moved to {place}: {failure.strerror}") from failure
        say(f"{folder}: {error.problem}: moved to {place}")
        work()


def _check_source(prompt: str | None, prompt_file: Path | None, input_embeddings: Path | None) -> None:
    if sum(source is not None for source in (prompt, prompt_file, input_embeddings)) != 1:
        raise EcadError("give either --prompt, --prompt-file or --input-embeddings, one of them")
    if prompt is not None and not prompt.strip():
        raise EcadError("--prompt: expected a text, found none")


def _read(prompt_file: Path | None, file_format: str | None) -> list[Prompt]:
    return [] if prompt_file is None else read_prompts(prompt_file, file_format)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(infer)
