"""`ecad generate`: make images of stored prompts under one schedule or many."""

from __future__ import annotations

import os
import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ecad.commands.main import finish, loading, main, require_exact, tell_left_out
from ecad.commands.options import (
    MOST,
    AsJson,
    ImageGeneratorOption,
    ModelOptions,
    Overwrite,
    RequireExact,
    WorkerOptions,
    grouped_options,
)
from ecad.errors import EcadError
from ecad.utils.console import bar

if TYPE_CHECKING:
    from ecad.jobs.generate_on_workers import Order


@dataclass(frozen=True)
class BatchOptions:
    """The flags that say which images are made of each prompt, and which part of them by this process."""

    num_images_per_prompt: Annotated[
        int,
        typer.Option("--num-images-per-prompt", "-n", min=1, max=MOST, help="Images per prompt, one seed each."),
    ] = 10
    batch_size: Annotated[int, typer.Option("--batch-size", "-b", min=1, max=MOST, help="Batch size.")] = 100
    seed: Annotated[int, typer.Option(help="Seed of each prompt's first image.")] = 0
    seed_step: Annotated[int, typer.Option(help="Difference between the seeds of consecutive images.")] = 1
    dont_include_seed: Annotated[bool, typer.Option("--dont-include-seed", help="Omit the seed in image names.")] = (
        False
    )
    shard: Annotated[str, typer.Option(help="i/n: do the i-th of n equal parts of the work, for instance 2/4.")] = "1/1"

    @property
    def seeds(self) -> list[int]:
        """Of the images of each prompt."""
        return [self.seed + self.seed_step * i for i in range(self.num_images_per_prompt)]

    @property
    def part(self) -> tuple[int, int]:
        """(i, n) of `shard`.

        Raises:
            EcadError: it is no part.
        """
        found = re.fullmatch(r"(\d+)/(\d+)", self.shard)
        part, parts = (int(found[1]), int(found[2])) if found else (0, 0)
        if not 1 <= part <= parts:
            raise EcadError(f"--shard: expected i/n with i from 1 to n, found {self.shard!r}")
        return part, parts


@grouped_options
def generate(
    *,
    image_generator: ImageGeneratorOption,
    input_dir: Annotated[Path, typer.Option("--input-dir", "-i", help="Folder of embeddings.")],
    schedule_dir: Annotated[Path, typer.Option("--schedule-dir", "-d", help="Schedule file, or a folder of them.")],
    output_dir: Annotated[Path, typer.Option("--output-dir", "-o", help="Parent of one folder per schedule.")],
    images: BatchOptions,
    regen_if_not_n_images: Annotated[
        int | None,
        typer.Option(min=1, help="Skip a schedule if its folder has exactly N images."),
    ] = None,
    overwrite: Overwrite = False,
    exact: RequireExact = False,
    workers: WorkerOptions,
    model: ModelOptions,
    as_json: AsJson = False,
) -> None:
    """Generate images from stored embeddings under schedules. An interrupted run resumes."""
    if exact:
        require_exact()
    from ecad.prompts.store import find_stored
    from ecad.schedules.files import in_file, load_schedules

    part = images.part
    model.check(image_generator)
    schedules = load_schedules(schedule_dir)
    stored = find_stored(input_dir)
    loading(image_generator, as_json)
    from ecad.jobs.generate import cut_batches, jobs_of, make_images, units
    from ecad.jobs.generate_on_workers import make_images_on

    if regen_if_not_n_images is not None:
        schedules = {name: one for name, one in schedules.items() if _count(output_dir / name) != regen_if_not_n_images}
    batches = cut_batches(stored, images.seeds, images.batch_size, not images.dont_include_seed)
    if not schedules:
        finish({"images": 0, "folders": []}, f"nothing to do: all schedules have their images in {output_dir}", as_json)
        return
    with ExitStack() as stack:
        if workers.in_process:
            generator = model.load(image_generator, only="images")
            with in_file(schedule_dir):
                jobs, misfits = jobs_of(generator, schedules, output_dir)
            total = len(units(jobs, batches, part))
            steps = make_images(generator, jobs, batches, output_dir, part, overwrite)
        else:
            order = _order(images, input_dir, schedule_dir, output_dir, list(schedules), overwrite)
            options = {**model.for_workers(image_generator), "exact": exact, "order": order}
            pool = stack.enter_context(workers.open("ecad.jobs.generate_on_workers:worker", options, output_dir))
            jobs, misfits, total, steps = make_images_on(pool, order, output_dir)
        tell_left_out(misfits)
        done = sum(bar(steps, "generating", hidden=as_json, total=total))
    result = {"images": done, "folders": [str(job.folder) for job in jobs]}
    finish(result, f"{done} images under {len(jobs)} schedules in {output_dir}", as_json)


def _order(
    images: BatchOptions, input_dir: Path, schedule_dir: Path, output_dir: Path, names: list[str], overwrite: bool
) -> Order:
    from ecad.jobs.generate_on_workers import Order

    return Order(
        os.path.abspath(input_dir),
        os.path.abspath(schedule_dir),
        os.path.abspath(output_dir),
        names=names,
        seeds=images.seeds,
        batch_size=images.batch_size,
        seed_in_name=not images.dont_include_seed,
        shard=images.part,
        overwrite=overwrite,
    )


def _count(folder: Path) -> int:
    return sum(1 for _ in folder.rglob("*.png"))


if __name__ == "__main__":
    main(generate)
