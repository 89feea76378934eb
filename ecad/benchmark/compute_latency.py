"""`ecad latency`: time schedules against no caching and write the times into their files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ecad.commands.main import finish, loading, main, tell_left_out
from ecad.commands.options import MOST, AsJson, ImageGeneratorOption, ModelOptions, grouped_options
from ecad.errors import EcadError
from ecad.utils.console import bar

if TYPE_CHECKING:
    from ecad.image_generators import ImageGenerator, PromptEmbeds
    from ecad.jobs.generate import Job


@dataclass(frozen=True)
class SampleOptions:
    """The flags that say what is measured."""

    batch_size: Annotated[
        list[int] | None,
        typer.Option("--batch-size", "-b", min=1, max=MOST, help="Batch size [100]; may be repeated."),
    ] = None
    warmup_steps: Annotated[
        int, typer.Option("--warmup-steps", "-w", min=0, max=MOST, help="Warm-up batches that are not measured.")
    ] = 1
    num_samples: Annotated[int, typer.Option("--num-samples", "-n", min=1, max=MOST, help="Measured batches.")] = 5
    recompute_existing: Annotated[
        bool, typer.Option("--recompute-existing", help="Measure again even if the file has a time.")
    ] = False

    @property
    def sizes(self) -> list[int]:
        """The batch sizes."""
        return self.batch_size or [100]

    def measure(self, generator: ImageGenerator, file: Path, job: Job, embeds: PromptEmbeds, hidden: bool) -> list[int]:
        """Measure a schedule and write the times into its file; returns the batch sizes that had none."""
        from ecad.jobs.latency import measure_latency
        from ecad.schedules.files import update_metrics

        assert job.schedule is not None
        known = _measured(job.schedule.metrics)
        missing = [size for size in self.sizes if self.recompute_existing or str(size) not in known]
        for size in missing:
            progress = partial(bar, label=f"{file}, {size} at once", hidden=hidden)
            found = measure_latency(generator, job, embeds, size, self.num_samples, self.warmup_steps, progress)
            by_size = {**_read(file), str(size): found}
            several = {"latency_by_batch_size": by_size} if len(by_size) > 1 else {}
            update_metrics(file, job.schedule, {"latency": by_size[str(self.sizes[0])], **several})
        return missing


@grouped_options
def latency(
    *,
    image_generator: ImageGeneratorOption,
    embedding_dir: Annotated[Path, typer.Option("--embedding-dir", "-i", help="Folder of embeddings.")],
    schedule_dir: Annotated[
        Path | None, typer.Option("--schedule-dir", "-d", help="Schedule file, or a folder of schedules.")
    ] = None,
    schedule_list: Annotated[list[Path] | None, typer.Option(help="Further schedule files.")] = None,
    more_schedules: Annotated[list[Path] | None, typer.Argument(hidden=True)] = None,
    samples: SampleOptions,
    model: ModelOptions,
    as_json: AsJson = False,
) -> None:
    """Time schedules against uncached images in alternation, in ms per image without the text encoder."""
    # `--schedule-list A B C`: an option takes the first, what follows arrives as arguments.
    listed = [*(schedule_list or []), *(more_schedules or [])]
    if (schedule_dir is None) == (not listed):
        raise EcadError("give either --schedule-dir or --schedule-list")
    from ecad.prompts.store import find_stored
    from ecad.schedules import CacheSchedule
    from ecad.schedules.files import in_file, schedule_files, use_each

    model.check(image_generator)
    files = listed if schedule_dir is None else schedule_files(schedule_dir)
    schedules = {file: CacheSchedule.load(file) for file in files}
    stored = find_stored(embedding_dir)
    loading(image_generator, as_json)
    from ecad.jobs.generate import cut_batches, job_of, stored_embeds
    from ecad.jobs.latency import conditions

    prompts = cut_batches(stored, [0], max(samples.sizes))[0]
    generator = model.load(image_generator, only="images")
    with in_file(files[0]):
        jobs, misfits = use_each(
            schedules, lambda file, schedule: job_of(generator, schedule, file.parent), image_generator
        )
    tell_left_out(misfits)
    embeds = stored_embeds(generator, prompts)
    rows = []
    for file, job in jobs.items():
        missing = samples.measure(generator, file, job, embeds, as_json)
        measured, here = _read(file), conditions(generator, job)
        rows += [
            {"file": str(file), "written": size in missing, "elsewhere": _elsewhere(row, here), **row}
            for size in samples.sizes
            for row in [measured[str(size)]]
        ]
    left_out = {str(file): why for file, why in misfits.items()}
    finish({"schedules": rows, "left_out": left_out}, "\n".join(map(_line, rows)), as_json)


def _read(file: Path) -> dict[str, Any]:
    """Batch size -> its times in a schedule's file."""
    from ecad.schedules import CacheSchedule

    return _measured(CacheSchedule.load(file).metrics)


def _measured(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Batch size -> its times in a schedule's metrics."""
    from ecad.schedules import json_values as plain

    known = plain.thaw(metrics)
    one = known.get("latency") or {}
    return {str(one.get("batch_size")): one, **known.get("latency_by_batch_size", {})} if one else {}


def _elsewhere(row: Mapping[str, object], here: Mapping[str, object]) -> list[str]:
    """In what a time differs from one that would be measured here; published files say little of it."""
    return [name for name, value in here.items() if row.get(name, value) != value]


def _line(row: Mapping[str, Any]) -> str:
    line = f"{row['file']}: {row['avg']:.2f} ms per image, batch size {row['batch_size']}, on {row['gpu']}"
    if "speedup" in row:
        line += f", {row['speedup']:.2f}× as fast as uncached ({row['uncached_median']:.2f} ms)"
    if row["written"]:
        return line
    other = f", measured with another {' and '.join(row['elsewhere'])} than here" if row["elsewhere"] else ""
    return f"{line}; read from the file{other} (--recompute-existing measures again)"


if __name__ == "__main__":
    main(latency)
