"""`ecad study ...`: list studies, export one as a table, show its probes."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from ecad.commands.main import finish
from ecad.commands.options import AsJson, Weights, known_device
from ecad.commands.resume import searched_generator
from ecad.errors import EcadError
from ecad.utils.console import bar, console, say
from ecad.utils.files import write_atomic

if TYPE_CHECKING:
    from ecad.genetic.probes import Probes
    from ecad.genetic.study.study import Study

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="List studies, export one as a table, show what its probes say."
)

StudyFolder = Annotated[Path, typer.Argument(help="Folder of a study.")]


@app.command("ls")
def ls(
    folder: Annotated[Path, typer.Argument(help="Folder with studies in it or below it.")] = Path(),
    as_json: AsJson = False,
) -> None:
    """List the studies in a folder and below it, finished or not."""
    if not folder.is_dir():
        raise EcadError(f"{folder}: there is no such folder")
    from ecad.genetic.study.layout import DATABASE
    from ecad.genetic.study.study import Study
    from ecad.genetic.study.table import summary_row

    rows = []
    for place in sorted(file.parent for file in folder.rglob(DATABASE)):
        try:
            study = Study.open(place)
        except EcadError as error:
            say(f"left out: {error}")
            continue
        rows.append({"folder": str(place), **summary_row(study)})
        study.close()
    finish({"studies": rows}, "\n".join(map(_line, rows)) or f"{folder}: no studies", as_json)


@app.command("export")
def export(
    kind: Annotated[str, typer.Argument(metavar="csv|json", help="Format of the table.")],
    folder: StudyFolder,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write; by default stdout.")] = None,
) -> None:
    """Write all candidates of a study as a table: cost, quality, and which are on the front."""
    if kind not in ("csv", "json"):
        raise EcadError(f"expected csv or json, found {kind!r}")
    from ecad.genetic.study.study import Study
    from ecad.genetic.study.table import candidate_rows, summary_row

    study = Study.open(folder)
    rows = candidate_rows(study)
    if kind == "json":
        document = {"study": summary_row(study), "settings": study.settings, "candidates": rows}
        text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    else:
        text = _csv(rows)
    study.close()
    if output is None:
        print(text, end="")
        return
    write_atomic(output, text)
    say(f"{len(rows)} candidates in {output}")


@app.command("probes")
def probes(
    folder: StudyFolder,
    components: Annotated[
        bool, typer.Option("--components", help="Also probe each component: makes images for what is not scored yet.")
    ] = False,
    image_generator: Annotated[
        str | None,
        typer.Option(help="For --components: where the searched pipeline is; by default as it was searched."),
    ] = None,
    weights: Weights = None,
    device: Annotated[
        str, typer.Option(callback=known_device, help="auto, cpu, cuda or mps; for --components.")
    ] = "auto",
    as_json: AsJson = False,
) -> None:
    """Show how much each step, and each component in it, matters; writes probes.json and probes.png to the study."""
    from ecad.report import check_installed

    check_installed()
    from ecad.genetic.probes import read_probes
    from ecad.genetic.study.study import Study
    from ecad.report.front_plot import save_figure
    from ecad.report.probe_plot import probe_plot

    study = Study.open(folder)
    try:
        if components:
            _make(study, folder, image_generator or searched_generator(folder), weights, device, as_json)
        found = read_probes(study)
    finally:
        study.close()
    data, figure = folder / "probes.json", folder / "probes.png"
    found.save(data)
    save_figure(lambda: probe_plot(found.quality, found.scorer), figure)
    if not as_json:
        console.print(_table(found))
    quality = {name: list(values) for name, values in found.quality.items()}
    result = {"scorer": found.scorer, "images": found.images, "quality": quality, "files": [str(data), str(figure)]}
    finish(result, f"{data}, {figure}", as_json)


def _make(
    study: Study, folder: Path, image_generator: str | None, weights: str | None, device: str, hidden: bool
) -> None:
    from ecad.genetic.illustrate import check_generator, evaluator_for
    from ecad.genetic.probes import make_probes
    from ecad.genetic.study.results import generator_of
    from ecad.image_generators import get_image_generator

    generator = get_image_generator(image_generator or generator_of(study), weights, device=device)
    check_generator(study, folder, generator)
    draw = lambda items, count: bar(items, "probes", hidden=hidden, total=count)  # noqa: E731
    make_probes(study, evaluator_for(generator, study.items, study), folder, draw)


def _table(found: Probes) -> Table:
    """A row per step; the worst value of each column is marked."""
    title = f"{found.scorer} if only this is not computed ({found.images} images)"
    table = Table("step", *found.quality, title=title, title_justify="left")
    worst = {
        name: min((value for value in values if value is not None), default=None)
        for name, values in found.quality.items()
    }
    for step in range(found.num_steps):
        cells = [_cell(values[step], worst[name]) for name, values in found.quality.items()]
        table.add_row(f"{step + 1:03d}", *cells)
    return table


def _cell(value: float | None, worst: float | None) -> str:
    return "" if value is None else f"{value:.2f}{' *' if value == worst else ''}"


def _csv(rows: list[dict[str, object]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["name"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _line(row: dict[str, Any]) -> str:
    best = "none" if row["best_at_2x"] is None else f"{row['best_at_2x']:.2f}"
    failures = f", {row['failures']} given up" if row["failures"] else ""
    return (
        f"{row['folder']}: {row['image_generator']}, {row['rows']} rows, mode {row['mode']}: {row['generations']} "
        f"generations, {row['candidates']} candidates{failures}, {row['images']} images, {row['minutes']:.1f} min, "
        f"front {row['front']}, best {row['scorer']} at 2×: {best}"
    )
