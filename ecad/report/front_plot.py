"""The front as an image file: PNG for screens, SVG for print."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ecad.errors import EcadError
from ecad.report.results import Results
from ecad.report.summary import Point, front, held_out_points, main_scorer, opacity_of, plot_unit, search_points
from ecad.utils.files import write_atomic
from ecad.utils.plot_style import KINDS, LIGHT

_MARKERS = {"uncached": "s", "baseline": "D", "found": "o"}
# Fixed ids and no date, so that the same results give the same file.
_STYLE: Any = {
    "font.size": 10,
    "svg.hashsalt": "ecad",
    "axes.edgecolor": LIGHT["muted"],
    "axes.labelcolor": LIGHT["ink"],
    "xtick.color": LIGHT["muted"],
    "ytick.color": LIGHT["muted"],
}


def save_front_plot(results: Results, path: str | os.PathLike[str], *, dpi: int = 150) -> None:
    """Write the plot of the front to a file.

    Args:
        results: what to show.
        path: the file, with the suffix .png or .svg.
        dpi: dots per inch of a PNG.

    Raises:
        EcadError: the suffix is another one, or the file cannot be written.
    """
    save_figure(lambda: front_plot(results), path, dpi=dpi)


def save_figure(draw: Callable[[], Figure], path: str | os.PathLike[str], *, dpi: int = 150) -> None:
    """Write a figure to a file.

    Args:
        draw: makes the figure, in the style of all figures.
        path, dpi: as for `save_front_plot`.

    Raises:
        EcadError: as `save_front_plot` does.
    """
    kind = Path(path).suffix.lower().removeprefix(".")
    if kind not in ("png", "svg"):
        raise EcadError(f"{os.fspath(path)}: cannot write .{kind} files; use .png or .svg")
    stream = io.BytesIO()
    with rc_context(_STYLE):
        draw().savefig(stream, format=kind, dpi=dpi, metadata={"Date": None} if kind == "svg" else None)
    write_atomic(path, stream.getvalue())


def front_plot(results: Results) -> Figure:
    """Plot quality against MACs: all candidates on the search prompts, and held-out scores with 95% intervals.

    These are two plots, because they are means over different prompts.
    """
    scorer = main_scorer(results)
    views = [view for view, exists in (("search", bool(results.candidates)), ("held-out", bool(scorer))) if exists]
    figure = Figure(figsize=(5.6 * max(1, len(views)), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, max(1, len(views)), squeeze=False)[0]
    factor, unit = plot_unit(results)
    for axis, view in zip(axes, views, strict=False):
        if view == "search":
            _draw_search(axis, results, factor)
        else:
            _draw_held_out(axis, results, scorer or "", factor)
    for axis in axes:
        axis.set_xlabel(f"{unit}MACs per image")
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(color=LIGHT["rule"], linewidth=0.6)
        axis.set_axisbelow(True)
        axis.margins(0.08, 0.12)
    if axes[-1].get_legend_handles_labels()[0]:
        axes[-1].legend(frameon=False, loc="lower right")
    return figure


def _draw_search(axis: Axes, results: Results, factor: float) -> None:
    macs = [candidate.macs / factor for candidate in results.candidates]
    quality = [candidate.quality for candidate in results.candidates]
    axis.scatter(
        macs,
        quality,
        s=9,
        color=LIGHT["candidate"],
        alpha=opacity_of(len(macs)),
        linewidths=0,
        rasterized=len(macs) > 2000,
    )
    axis.set_title(f"search prompts: all {len(macs):,} evaluated", loc="left", fontsize=10)
    axis.set_ylabel(f"{results.quality_name} score", parse_math=False)
    _draw_entries(axis, search_points(results), factor)


def _draw_held_out(axis: Axes, results: Results, scorer: str, factor: float) -> None:
    axis.set_title("held-out prompts: mean and 95% interval", loc="left", fontsize=10)
    axis.set_ylabel(f"{scorer} score", parse_math=False)
    _draw_entries(axis, held_out_points(results, scorer), factor)


def _draw_entries(axis: Axes, points: list[Point], factor: float) -> None:
    for kind, label in KINDS.items():
        chosen = [point for point in points if point.entry.kind == kind]
        if not chosen:
            continue
        macs, quality = [point.cost / factor for point in chosen], [point.quality for point in chosen]
        spread = [[point.quality - point.low for point in chosen], [point.high - point.quality for point in chosen]]
        look: dict[str, Any] = {"fmt": _MARKERS[kind], "color": LIGHT[kind], "markersize": 6, "elinewidth": 1}
        axis.errorbar(macs, quality, spread, label=label, zorder=3, **look)
        if kind == "found":
            best = front(chosen)
            steps = [point.cost / factor for point in best], [point.quality for point in best]
            axis.step(*steps, where="post", color=LIGHT[kind], linewidth=1.2)
            continue
        # The uncached entry is at the right edge, and the others have candidates to their left.
        offset, side = ((-7, 0), "right") if kind == "uncached" else ((7, 0), "left")
        for point, x in zip(chosen, macs, strict=True):
            text = axis.annotate(point.entry.name, (x, point.quality), offset, textcoords="offset points")
            text.set(color=LIGHT[kind], va="center", ha=side, parse_math=False)
