"""The page that compares folders of generated images: a grid of prompts and schedules, with scores, FID and CLIP."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ecad.errors import EcadError
from ecad.images.files import read_image
from ecad.images.folder import MANIFEST, read_manifest
from ecad.quality import mean_interval, psnr
from ecad.report.html import data_uri, render
from ecad.report.results import Interval
from ecad.report.summary import score_text
from ecad.utils.files import parse_json, write_atomic

SHOWN_ROWS = 24
# Shown for equal images, whose PSNR is infinite.
_MAX_PSNR = 99.0


@dataclass(frozen=True)
class Column:
    """The images of one schedule.

    Args:
        name: path of the folder, relative to the folder that is compared.
        folder: the folder with the images.
        uncached: whether the images were made without a schedule.
        rows: file -> its entry in the manifest.
        scores: scorer -> file -> score, as `ecad score` and `ecad clip` wrote them.
        totals: scorer -> a number, or a mean with its confidence interval, as text.
    """

    name: str
    folder: Path
    uncached: bool
    rows: Mapping[str, Mapping[str, Any]]
    scores: Mapping[str, Mapping[str, float]]
    totals: Mapping[str, str]


class _Cell(NamedTuple):
    """An image in the grid: its data URI, its PSNR to the reference, its scores, and whether it has the lowest PSNR."""

    image: str | None
    psnr: float | None
    lines: list[str]
    least: bool = False


class _Row(NamedTuple):
    """A prompt and seed in the grid, with the images of all schedules."""

    prompt: str
    seed: int | None
    cells: list[_Cell]


@dataclass(frozen=True)
class Comparison:
    """Folders of images to compare, the uncached one first.

    Args:
        columns: the folders.
        missing: what could not be read, a sentence each.
    """

    columns: Sequence[Column]
    missing: Sequence[str]


def is_comparison(folder: Path) -> bool:
    """Whether a folder or its direct subfolders hold generated images with a manifest, and no search results."""
    return not (folder / "results.json").exists() and bool(_folders(folder))


def read_comparison(folder: str | os.PathLike[str]) -> Comparison:
    """Read the manifests and scores of the images of all schedules.

    Args:
        folder: the output folder of `ecad generate`.

    Raises:
        EcadError: no folder has a readable manifest.
    """
    root = Path(folder)
    columns: list[Column] = []
    missing: list[str] = []
    for place in _folders(root):
        try:
            columns.append(_column(root, place, missing))
        except EcadError as error:
            missing.append(str(error))
    if not columns:
        raise EcadError(missing[0] if missing else f"{root}: no folders of images with a {MANIFEST} here")
    return Comparison(sorted(columns, key=lambda column: not column.uncached), missing)


def write_comparison(comparison: Comparison, folder: str | os.PathLike[str]) -> list[Path]:
    """Write `report.html` to a folder.

    Args:
        comparison: what to show.
        folder: the output folder.

    Returns:
        the path of the page.

    Raises:
        EcadError: the page cannot be written.
    """
    path = Path(folder) / "report.html"
    write_atomic(path, comparison_page(comparison, Path(folder).resolve().name))
    return [path]


def comparison_page(comparison: Comparison, title: str) -> str:
    """The page as HTML text."""
    columns = comparison.columns
    files = sorted(set().union(*(column.rows for column in columns)))
    shown = [files[i] for i in np.unique(np.linspace(0, len(files) - 1, min(SHOWN_ROWS, len(files))).astype(int))]
    rows = [_row(file, columns) for file in shown]
    lost = sum(cell.image is None for row in rows for cell in row.cells)
    missing = [*comparison.missing, *([f"{lost} of the images shown could not be read."] if lost else [])]
    totals = list(dict.fromkeys(name for column in columns for name in column.totals))
    return render(
        "comparison.html",
        ["comparison.js"],
        data={},
        title=f"Generated images: {title}",
        columns=columns,
        totals=totals,
        rows=rows,
        num_files=len(files),
        missing=missing,
        reference=columns[0].name,
    )


def _folders(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted(file.parent for file in (*root.glob(MANIFEST), *root.glob(f"*/{MANIFEST}")))


def _column(root: Path, place: Path, missing: list[str]) -> Column:
    settings, rows = read_manifest(place)
    scores: dict[str, dict[str, float]] = {}
    totals = {"images": str(sum((place / file).is_file() for file in rows))}
    for file in sorted(place.glob("*.json")):
        try:
            _read_scores(parse_json(file.read_bytes()), file.stem, scores, totals)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            missing.append(f"{file}: cannot read these scores: {type(error).__name__}: {error}")
    name = place.relative_to(root).as_posix() if place != root else root.resolve().name
    return Column(name, place, settings.get("plan") == "uncached", rows, scores, totals)


def _read_scores(found: Any, stem: str, scores: dict[str, dict[str, float]], totals: dict[str, str]) -> None:
    """Read what `ecad score`, `clip` and `fid` write; other JSON files are ignored."""
    if "fid_score" in found:
        totals[f"FID, {found['model_name']}"] = f"{float(found['fid_score']):.3f}"
        if found.get("kid_score") is not None:
            totals[f"KID, {found['model_name']}"] = f"{float(found['kid_score']):.5f}"
    elif "total_score" in found:
        name = str(found.get("scorer", stem))
        values = np.array(list(found["avg_by_prompt"].values()), dtype=np.float64)
        totals[name] = score_text(Interval(float(found["total_score"]), *mean_interval(values)), 3)
        scores[name] = {file: float(row["score"]) for file, row in found.get("images", {}).items()}


def _row(file: str, columns: Sequence[Column]) -> _Row:
    row = next(column.rows[file] for column in columns if file in column.rows)
    cells = [_cell(file, column, columns[0]) for column in columns]
    similarities = [cell.psnr for cell in cells if cell.psnr is not None]
    if len(similarities) > 1:
        cells = [cell._replace(least=cell.psnr == min(similarities)) for cell in cells]
    return _Row(str(row.get("prompt", file)), row.get("image_seed"), cells)


def _cell(file: str, column: Column, reference: Column) -> _Cell:
    path = column.folder / file
    image = data_uri(path)
    similarity = None if image is None or column is reference else _psnr(path, reference.folder / file)
    lines = [f"{name} {values[file]:.3f}" for name, values in column.scores.items() if file in values]
    return _Cell(image, similarity, lines)


def _psnr(path: Path, reference: Path) -> float | None:
    """PSNR to the reference in decibels; None without a reference of the same size."""
    try:
        image, other = read_image(path), read_image(reference)
    except EcadError:
        return None
    if image.shape != other.shape:
        return None
    return min(float(psnr(image[None], other[None])[0]), _MAX_PSNR)
