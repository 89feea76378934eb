"""`ecad report`: the page, plots and tables of a study, a demo, or folders of images."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ecad.commands.main import finish, loading, main
from ecad.commands.options import Weights, known_device
from ecad.commands.resume import searched_generator
from ecad.errors import EcadError
from ecad.utils.console import bar, console, say


def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a study, of a demo, or of generated images.")],
    text: Annotated[bool, typer.Option(help="Print tables and a plot to the terminal; write nothing.")] = False,
    images: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of images per schedule to make first, for a study; this also scores and times the baselines.",
        ),
    ] = None,
    image_generator: Annotated[
        str | None, typer.Option(help="For --images: where the searched pipeline is; by default as it was searched.")
    ] = None,
    weights: Weights = None,
    device: Annotated[str, typer.Option(callback=known_device, help="auto, cpu, cuda or mps; for --images.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the files as JSON.")] = False,
) -> None:
    """Write an HTML page, plots and tables of a study (finished or not), a demo, or generated images."""
    if not Path(folder).is_dir():
        raise EcadError(f"{folder}: there is no such folder; give that of a study, a demo or generated images")
    from ecad.report import check_installed, show_text, write_report

    check_installed()
    loading(str(folder), as_json)
    from ecad.genetic.study.results import read_results
    from ecad.report.comparison import is_comparison, read_comparison, write_comparison

    if images is not None:
        _illustrate(folder, images, image_generator, weights, device, as_json)
    if is_comparison(folder):
        if text:
            raise EcadError(f"{folder}: images cannot be shown in a terminal; leave out --text")
        files = [str(path) for path in write_comparison(read_comparison(folder), folder)]
        finish({"files": files}, f"page: {files[0]}", as_json)
        return
    results = read_results(folder)
    for line in results.missing:
        say(line)
    if text:
        show_text(results, console)
        return
    files = [str(path) for path in write_report(results, folder)]
    finish({"files": files}, f"page: {files[0]}", as_json)


def _illustrate(
    folder: Path, images: int, image_generator: str | None, weights: str | None, device: str, hidden: bool
) -> None:
    from ecad.genetic.illustrate import illustrate
    from ecad.genetic.study.results import generator_of
    from ecad.genetic.study.study import Study
    from ecad.image_generators import get_image_generator

    study = Study.open(folder)
    try:
        # A pipeline's own name does not say where it is; the flags of the search do.
        name = image_generator or searched_generator(folder) or generator_of(study)
        generator = get_image_generator(name, weights, device=device)
        illustrate(study, folder, generator, images, partial(bar, hidden=hidden))
    finally:
        study.close()


if __name__ == "__main__":
    main(report)
