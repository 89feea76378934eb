"""`ecad macs`: price schedules in multiply-accumulates and write the count into their files."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.table import Table

from ecad.commands.main import finish, loading, main, tell_left_out
from ecad.commands.options import ImageGeneratorOption, Pixels
from ecad.errors import EcadError
from ecad.utils.console import console

if TYPE_CHECKING:
    from ecad.cost import Architecture
    from ecad.schedules import CacheSchedule


def macs(
    image_generator: ImageGeneratorOption,
    input_dir: Annotated[Path, typer.Option("--input-dir", "-i", help="Schedule file, or a folder of schedules.")],
    recompute_existing: Annotated[
        bool, typer.Option("--recompute-existing", help="Count again even if the file has a count.")
    ] = False,
    print_detailed: Annotated[
        bool, typer.Option("--print-detailed", help="Show the count of each step and component.")
    ] = False,
    accounting: Annotated[
        str, typer.Option(help="full: all operations; linear: linear and convolution layers only, as published.")
    ] = "full",
    height: Pixels = None,
    width: Pixels = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Count the MACs of one image (denoiser, guidance pair included) under each schedule."""
    from ecad.image_generators import check_image_generator, image_generators
    from ecad.schedules import CacheSchedule
    from ecad.schedules.files import in_file, schedule_files, use_each

    check_image_generator(image_generator)
    if accounting not in ("full", "linear"):
        raise EcadError(f"--accounting {accounting!r} is unknown: expected full or linear")
    schedules = {file: CacheSchedule.load(file) for file in schedule_files(input_dir)}
    loading(image_generator, as_json)
    from ecad.cost import count_macs_by_component, uncached_macs
    from ecad.image_generators import get_image_generator

    # By its name, a registered generator's sizes may depend on the schedule.
    loaded = None if image_generator in image_generators() else get_image_generator(image_generator)

    @cache
    def model(rows: int) -> str | Architecture:
        return image_generator if loaded is None else loaded.architecture_for(rows)

    def count(_: Path, schedule: CacheSchedule) -> tuple[dict[str, np.ndarray], int]:
        asked = (model(schedule.num_steps), accounting, height, width)
        return count_macs_by_component(schedule, *asked), uncached_macs(schedule, *asked)  # type: ignore[arg-type]

    # All are counted before the first file is written: a folder is done, or untouched.
    with in_file(next(iter(schedules))):
        counted, misfits = use_each(schedules, count, image_generator)
    tell_left_out(misfits)
    rows = []
    for file, (by_component, uncached) in counted.items():
        by_step = np.asarray(sum(by_component.values()))
        rows.append(_keep(file, schedules[file], by_step, uncached, accounting, recompute_existing))
        if print_detailed and not as_json:
            console.print(_table(file, by_component))
    detail = {str(file): {name: macs.tolist() for name, macs in found.items()} for file, (found, _) in counted.items()}
    left_out = {str(file): why for file, why in misfits.items()}
    result = {"accounting": accounting, "schedules": rows, "left_out": left_out}
    finish(
        {**result, **({"by_component": detail} if print_detailed else {})},
        "\n".join(_line(row) for row in rows),
        as_json,
    )


def _keep(
    file: Path, schedule: CacheSchedule, by_step: np.ndarray, uncached: int, accounting: str, recompute: bool
) -> dict[str, object]:
    """Write a count into a schedule's file, unless it has one; returns what is told of it."""
    from ecad.schedules.files import macs_metrics, update_metrics

    kept = "total_macs" in schedule.metrics and not recompute
    if not kept:
        update_metrics(file, schedule, macs_metrics(by_step, accounting))
    total = int(by_step.sum())
    in_file = schedule.metrics["total_macs"] if kept else total
    row = {"file": str(file), "total_macs": total, "uncached_macs": uncached, "fewer": uncached / total}
    return {**row, "in_file": in_file, "written": not kept}


def _line(row: Mapping[str, Any]) -> str:
    line = f"{row['file']}: {row['total_macs'] / 1e12:.6g} T MACs, {row['fewer']:.2f}× MAC reduction"
    if row["written"]:
        return line
    return f"{line}; the file keeps its {row['in_file'] / 1e12:.6g} T (--recompute-existing replaces it)"


def _table(file: Path, by_component: Mapping[str, np.ndarray]) -> Table:
    """Giga-MACs: one row per step, one column per component."""
    table = Table("step", *by_component, "sum", title=f"{file}, G MACs", title_justify="left")
    rows = np.stack(list(by_component.values()), axis=1)
    for step, row in enumerate([*rows, rows.sum(axis=0)]):
        cells = [f"{value / 1e9:.3f}" for value in [*row, row.sum()]]
        table.add_row(f"{step:03d}" if step < len(rows) else "all", *cells)
    return table


if __name__ == "__main__":
    main(macs)
