"""The comparison as tables in the terminal and as a plot."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.table import Table

from ecad.utils.files import write_atomic
from ecad.utils.pareto import pareto
from rivals.figures import LEVELS, is_first, is_ours

_UNITS = {"psnr": "PSNR to uncached, dB", "judge": "judge score", "lpips": "LPIPS to uncached"}
_DIGITS = {"psnr": 2, "judge": 2, "lpips": 4}
# Fidelity, and prompt alignment.
_PLOTTED = ("psnr", "judge")
# The methods of ecad that search; others are dotted.
_SOLID = ("ecad fast", "ecad optimize")
# Judge's scores further below the best are cut off, so that one broken setting does not flatten all others.
_SPAN = 20


def comparison_table(rows: Sequence[dict[str, Any]], missing: Mapping[str, str], title: str) -> Table:
    """One row per setting, by rival, most expensive first; then the rivals that could not be run."""
    scores = [name for name in rows[0]["scores"] if name != "fid"]
    table = Table(title=title, title_justify="left")
    for name in ("rival", "setting", "MAC reduction", "speed-up", "kept kB", "peak kB", *scores, "FID"):
        table.add_column(name, justify="left" if name in ("rival", "setting") else "right", no_wrap=name == "rival")
    for row in sorted(rows, key=lambda row: (is_ours(row["rival"]), row["rival"], -row["cost"])):
        shown = [
            _interval(row["scores"][name], 3 if name in ("ssim", "judge_distance", "lpips") else 2) for name in scores
        ]
        ratios = row.get("speed_ups")
        faster = f"{row['speed_up']:.2f} [{min(ratios):.2f}, {max(ratios):.2f}]" if ratios else "–"
        table.add_row(
            row["rival"],
            row["name"],
            f"{1 / row['cost']:.2f}×",
            faster,
            f"{row['kept_bytes'] / 1000:.0f}",
            f"{row['peak_bytes'] / 1000:.0f}",
            *shown,
            _interval(row["scores"]["fid"], 2),
        )
    for name, reason in missing.items():
        table.add_row(name, reason if reason.startswith("failed") else f"not applicable: {reason}")
    return table


def _interval(score: Mapping[str, float], digits: int) -> str:
    return f"{score['mean']:.{digits}f} [{score['low']:.{digits}f}, {score['high']:.{digits}f}]"


def verdict_table(
    verdicts: Sequence[dict[str, Any]], areas: Mapping[str, Mapping[str, float]], score: str, cost: str
) -> Table:
    """The lead of ecad's best setting over each rival's at each level of cost; * if significant (95%)."""
    title = f"ecad's lead by {cost}, {_UNITS[score]}; * significant (95%)"
    table = Table(title=title, title_justify="left")
    for name in ("rival", *(f"{level:g}×" for level in LEVELS), "hypervolume"):
        table.add_column(name, justify="left" if name == "rival" else "right")
    found = [entry for entry in verdicts if entry["score"] == score]
    for rival in sorted(filter(is_first, areas), key=lambda rival: -areas[rival].get(score, 0)):
        cells = []
        for level in LEVELS:
            entry = next((e for e in found if e["rival"] == rival and e["level"] == level), None)
            if entry is None or entry["theirs"] is None:
                cells.append("–")
            else:
                cells.append(_lead(entry, score))
        table.add_row(rival, *cells, f"{areas[rival].get(score, 0):.2f}")
    return table


def _lead(entry: Mapping[str, Any], score: str) -> str:
    return f"{entry['lead']:+.{_DIGITS[score]}f}{'' if entry['verdict'] == 'level' else '*'}"


def studies_table(
    leads: Mapping[str, Mapping[float, Mapping[str, Any]]], areas: Mapping[str, Mapping[str, float]], score: str
) -> Table:
    """The lead of each study of ecad over the best rival, by MACs; * as above."""
    table = Table(title=f"each study compared with the best rival at each level, {_UNITS[score]}", title_justify="left")
    for name in ("study", *(f"{level:g}×" for level in LEVELS), "hypervolume"):
        table.add_column(name, justify="left" if name == "study" else "right")
    for study, found in leads.items():
        cells = [_lead(found[level], score) if level in found else "–" for level in LEVELS]
        table.add_row(study, *cells, f"{areas[study].get(score, 0):.2f}")
    return table


def save_plot(rows: Sequence[dict[str, Any]], title: str, file: Path) -> None:
    """Plot quality against MACs: the front of each rival with 95% intervals; ecad's is thick.

    Args:
        rows: of the table.
        title: of the figure.
        file: the PNG.
    """
    figure = Figure(figsize=(13, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    markers = "osD^v<>PX*hHd8p"
    rivals = sorted({row["rival"] for row in rows if is_first(row["rival"])}, key=lambda rival: (is_ours(rival), rival))
    for axes, score in zip(figure.subplots(1, 2), _PLOTTED, strict=True):
        for index, rival in enumerate(rivals):
            members = [row for row in rows if row["rival"] == rival and row["cost"] < 0.9]
            if not members:
                continue
            costs = np.array([row["cost"] for row in members])
            quality = np.array([row["scores"][score]["mean"] for row in members])
            ends = np.array([[row["scores"][score][end] for row in members] for end in ("low", "high")])
            front = pareto(costs, quality)
            style: dict[str, Any] = {
                "color": "black" if is_ours(rival) else colormaps["tab20"](index),
                "marker": markers[index % 15],
            }
            if is_ours(rival):
                style |= {"lw": 2.5, "ls": "-" if rival in _SOLID else ":", "zorder": 5}
            error = np.abs(ends[:, front] - quality[front])
            axes.errorbar(
                1 / costs[front], quality[front], yerr=error, ms=4, capsize=2, elinewidth=0.6, label=rival, **style
            )
            axes.scatter(1 / costs, quality, s=8, alpha=0.4, color=style["color"])
        axes.set(xlabel="MAC reduction (log scale)", ylabel=_UNITS[score], xscale="log", xlim=(1.05, 7))
        axes.set_xticks([1.25, *LEVELS], [f"{level:g}" for level in (1.25, *LEVELS)])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        if score == "judge":
            least = max(row["scores"][score]["mean"] for row in rows) - _SPAN
            axes.set(ylim=(least, None), ylabel=f"{_UNITS[score]} (below {least:.0f}: not shown)")
    lines, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside lower center", fontsize=8, ncols=6)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    write_atomic(file, stream.getvalue())
