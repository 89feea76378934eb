"""Writes all files of a report to a folder."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np

from ecad.errors import EcadError
from ecad.images.files import read_image
from ecad.images.grid import picture_grid
from ecad.report.results import Results
from ecad.report.summary import macs_text
from ecad.report.table import markdown_table
from ecad.utils.extras import check_installed
from ecad.utils.files import as_file_name, write_atomic


def write_report(results: Results, folder: str | os.PathLike[str]) -> list[Path]:
    """Write `report.html`, `front.png`, `front.svg`, `table.md`, `schedules/*.json` and, with images, `grid.png`.

    Args:
        results: what to show.
        folder: the folder of the results and their images.

    Returns:
        the written files, the page first.

    Raises:
        EcadError: a package of the extra `report` is missing, or a file cannot be written.
    """
    check_installed()
    from ecad.report.front_plot import save_front_plot
    from ecad.report.page import write_page

    home = Path(folder)
    page, png, svg = (home / name for name in ("report.html", "front.png", "front.svg"))
    write_page(results, home, page)
    save_front_plot(results, png)
    save_front_plot(results, svg)
    return [page, png, svg, *write_tables(results, home)]


def write_tables(results: Results, folder: str | os.PathLike[str]) -> list[Path]:
    """Like `write_report`, but only the files that need no extra: `table.md`, `schedules/*.json` and `grid.png`.

    Args:
        results: what to show.
        folder: the folder of the results and their images.

    Returns:
        the written files.

    Raises:
        EcadError: a file cannot be written.
    """
    home = Path(folder)
    written = [home / "table.md"]
    write_atomic(written[0], markdown_table(results))
    if any(entry.images for entry in results.entries):
        written.append(home / "grid.png")
        _save_grid(results, home, written[-1])
    for entry in results.ordered():
        written.append(home / "schedules" / f"{as_file_name(entry.name)}.json")
        entry.schedule.save(written[-1])
    return written


def _save_grid(results: Results, home: Path, path: Path) -> None:
    entries = [entry for entry in results.ordered() if entry.images]
    images = [[_picture(home / entry.images[row]) for entry in entries] for row in range(len(results.pictures))]
    macs = [entry.macs for entry in entries]
    columns = [f"{entry.name}\n{macs_text(entry.macs, macs)}MACs" for entry in entries]
    stream = io.BytesIO()
    picture_grid(images, [picture.prompt for picture in results.pictures], columns).save(stream, format="PNG")
    write_atomic(path, stream.getvalue())


def _picture(path: Path) -> np.ndarray | None:
    """An image, or None if it cannot be read, which leaves its cell empty."""
    try:
        return read_image(path)
    except EcadError:
        return None
