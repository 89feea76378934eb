"""Interactive plots, as plotly figures for the page and for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from ecad.report.palette import KINDS, LIGHT
from ecad.report.results import Generation, Interval, Results
from ecad.report.summary import (
    Point,
    decimals,
    duration_text,
    faintness,
    front,
    held_out_points,
    macs_text,
    plot_unit,
    score_text,
    search_points,
)
from ecad.schedules import CacheSchedule


def held_out_figure(results: Results, scorer: str) -> go.Figure:
    """Held-out score against MACs, with 95% intervals.

    Args:
        results: what to show.
        scorer: one of `results.scorers`.

    Returns:
        a figure whose points carry, as customdata, their entry's place in `results.ordered()`; its last trace, empty,
        is for marking a chosen point.
    """
    points = held_out_points(results, scorer)
    traces = [_front_line(results, points), *_entry_traces(results, points, decimals(results, scorer))]
    return _front_figure(results, f"{scorer} score, held-out prompts", traces)


def search_figure(results: Results) -> go.Figure:
    """Quality on the search's own prompts against MACs: everything it evaluated, faint, and the entries over it.

    Args and returns as for `held_out_figure`.
    """
    factor, _ = plot_unit(results)
    points = search_points(results)
    told = [f"generation {c.generation}<br>{macs_text(c.macs)}MACs, {c.quality:.4g}" for c in results.candidates]
    evaluated = go.Scatter(
        x=[candidate.macs / factor for candidate in results.candidates],
        y=[candidate.quality for candidate in results.candidates],
        mode="markers",
        name="evaluated",
        marker={"color": LIGHT["candidate"], "size": 5, "opacity": faintness(len(told))},
        text=told,
        hovertemplate="%{text}<extra></extra>",
    )
    traces = [evaluated, _front_line(results, points), *_entry_traces(results, points)]
    return _front_figure(results, f"{results.quality_name} score, search prompts", traces)


def schedule_figure(schedule: CacheSchedule, component: str | None = None) -> go.Figure:
    """A heat map: steps across, blocks down, the share of each block's components that recompute.

    Args:
        schedule: what to show.
        component: show this one alone, in the blocks that have it.
    """
    columns = [i for i, site in enumerate(schedule.sites) if component in (None, site[1])]
    blocks = list(dict.fromkeys(schedule.sites[i][0] for i in columns))
    of_block = np.array([blocks.index(schedule.sites[i][0]) for i in columns])
    bits = schedule.recompute[:, columns]
    share = np.stack([bits[:, of_block == block].mean(axis=1) for block in range(len(blocks))])
    heat_map = go.Heatmap(
        z=share.astype(np.float32),
        x=list(range(schedule.num_steps)),
        y=[escaped(block) for block in blocks],
        zmin=0,
        zmax=1,
        xgap=1,
        ygap=1 if len(blocks) <= _MANY_BLOCKS else 0,
        showscale=False,
        colorscale=[[0, LIGHT["reuse"]], [1, LIGHT["found"]]],
        hovertemplate="step %{x}, block %{y}: %{z:.0%} recomputed<extra></extra>",
    )
    # Block keys look like numbers, but "single_0" stands among them: a category each, the first on top.
    blocks_down = {"type": "category", "autorange": "reversed", "showgrid": False, "nticks": 15, "automargin": True}
    steps_across = {"showgrid": False, "tick0": 0, "dtick": -(-schedule.num_steps // 10)}
    margin = {"l": 30, "r": 6, "t": 6, "b": 40}
    height = 250 if len(blocks) <= _MANY_BLOCKS else 400
    return go.Figure([heat_map], _layout(height, margin, _axis("step", **steps_across), _axis("", **blocks_down)))


def history_figures(history: Sequence[Generation]) -> dict[str, go.Figure]:
    """How the search went: hypervolume, and the size of the front, against the images made so far."""
    told = [f"generation {g.number}, {duration_text(g.seconds)}" for g in history]
    made = {}
    for label, values in (
        ("hypervolume", [g.hypervolume for g in history]),
        ("schedules on the front", [g.front_size for g in history]),
    ):
        line = {"color": LIGHT["found"], "width": 2, "shape": "hv"}
        hover = f"%{{text}}<br>%{{x:,}} images, {label} %{{y:.4g}}<extra></extra>"
        images = [g.images for g in history]
        trace = go.Scatter(x=images, y=values, text=told, mode="lines", line=line, hovertemplate=hover)
        across, up = _axis("images generated", rangemode="tozero"), _axis(label, automargin=True)
        made[label] = go.Figure([trace], _layout(260, {"l": 50, "r": 12, "t": 12, "b": 44}, across, up))
    return made


def escaped(text: str) -> str:
    """Text that plotly shows as it is: it would take some tags for its own, and what stands between dollars for TeX."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("$", "&#36;")


_MANY_BLOCKS = 30
_FONTS = "system-ui, -apple-system, Segoe UI, Roboto, sans-serif"
_SYMBOLS = {"uncached": "square", "baseline": "diamond", "found": "circle"}


def _front_figure(results: Results, quality: str, traces: list[go.Scatter]) -> go.Figure:
    across = _axis(f"{plot_unit(results)[1]}MACs of an image", automargin=True)
    layout = _layout(440, {"l": 56, "r": 12, "t": 40, "b": 48}, across, _axis(escaped(quality), automargin=True))
    legend = {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}
    return go.Figure([*traces, _ring()], layout | {"legend": legend, "hovermode": "closest"})


def _front_line(results: Results, points: Sequence[Point]) -> go.Scatter:
    factor, _ = plot_unit(results)
    best = front([point for point in points if point.entry.kind == "found"])
    return go.Scatter(
        x=[point.entry.macs / factor for point in best],
        y=[point.quality for point in best],
        mode="lines",
        line={"color": LIGHT["found"], "width": 1.5, "shape": "hv"},
        hoverinfo="skip",
        showlegend=False,
    )


def _entry_traces(results: Results, points: Sequence[Point], digits: int = 3) -> list[go.Scatter]:
    """One trace a kind of entry; baselines and the uncached one carry their names."""
    chosen = {kind: [point for point in points if point.entry.kind == kind] for kind in KINDS}
    return [_entry_trace(results, kind, of_kind, digits) for kind, of_kind in chosen.items() if of_kind]


def _entry_trace(results: Results, kind: str, points: Sequence[Point], digits: int) -> go.Scatter:
    factor, _ = plot_unit(results)
    return go.Scatter(
        x=[point.entry.macs / factor for point in points],
        y=[point.quality for point in points],
        error_y={
            "array": [point.high - point.quality for point in points],
            "arrayminus": [point.quality - point.low for point in points],
            "symmetric": False,
            "thickness": 1.2,
            "width": 0,
        },
        name=KINDS[kind],
        mode="markers" if kind == "found" else "markers+text",
        marker={"color": LIGHT[kind], "size": 11, "symbol": _SYMBOLS[kind]},
        text=[f"  {escaped(point.entry.name)}  " for point in points],
        textposition="middle left" if kind == "uncached" else "middle right",
        textfont={"color": LIGHT[kind], "size": 12},
        customdata=[point.place for point in points],
        hovertext=[
            f"<b>{escaped(point.entry.name)}</b><br>{macs_text(point.entry.macs)}MACs<br>{_quality_text(point, digits)}"
            for point in points
        ],
        hovertemplate="%{hovertext}<extra></extra>",
        cliponaxis=False,
    )


def _quality_text(point: Point, digits: int) -> str:
    if point.low == point.high:
        return f"{point.quality:.{digits}f}"
    return score_text(Interval(point.quality, point.low, point.high), digits)


def _ring() -> go.Scatter:
    marker = {"symbol": "circle-open", "size": 20, "color": LIGHT["ink"], "line": {"width": 2}}
    return go.Scatter(x=[], y=[], mode="markers", marker=marker, hoverinfo="skip", showlegend=False)


def _axis(title: str, **more: Any) -> dict[str, Any]:
    lines = {"gridcolor": LIGHT["rule"], "linecolor": LIGHT["rule"], "zeroline": False, "fixedrange": True, "ticks": ""}
    return {"title": {"text": title, "font": {"size": 13}, "standoff": 12}, **lines, **more}


def _layout(height: int, margin: dict[str, int], xaxis: dict[str, Any], yaxis: dict[str, Any]) -> dict[str, Any]:
    return {
        "template": "none",
        "height": height,
        "margin": margin,
        "xaxis": xaxis,
        "yaxis": yaxis,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": _FONTS, "size": 13, "color": LIGHT["muted"]},
        "hoverlabel": {"bgcolor": LIGHT["surface"], "bordercolor": LIGHT["rule"], "font": {"color": LIGHT["ink"]}},
        "dragmode": False,
    }
