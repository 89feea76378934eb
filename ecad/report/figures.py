"""Interactive plots of a search, as plotly figures for the page and for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from ecad.genetic.front import pareto
from ecad.report.look import axis, escaped, layout
from ecad.report.palette import KINDS, LIGHT
from ecad.report.results import Candidate, Interval, Results
from ecad.report.summary import (
    Cost,
    Point,
    cost_axis,
    decimals,
    duration_text,
    faintness,
    front,
    held_out_points,
    macs_text,
    score_text,
    search_points,
)

# As many steps as a slider can be moved by hand.
FRAMES = 60
_SYMBOLS = {"uncached": "square", "baseline": "diamond", "found": "circle"}


def front_figure(results: Results, scorer: str | None = None, cost: Cost = "macs") -> go.Figure:
    """Quality against cost.

    Args:
        results: what to show.
        scorer: one of `results.scorers`: held-out scores with 95% intervals. None: quality on the search's own prompts,
            with everything that the search evaluated, and a slider over its generations where the cost is known of all.
        cost: "macs", "time" as measured, or "memory" of kept features.

    Returns:
        a figure whose points carry, as customdata, their entry's place in `results.ordered()`, or, past the last one,
        the place of a candidate; its last two traces, empty, are for marking chosen points.
    """
    scale = cost_axis(results, cost)
    points = search_points(results, cost) if scorer is None else held_out_points(results, scorer, cost)
    digits = 3 if scorer is None else decimals(results, scorer)
    quality = f"{results.quality_name} score, search prompts" if scorer is None else f"{scorer} score, held-out prompts"
    cloud = results.candidates if scorer is None and cost == "macs" else ()
    traces = [
        _cloud(results, cloud, scale.factor, 0.0),
        _line(scale.factor, [(p.cost, p.quality) for p in front([q for q in points if q.entry.kind == "found"])]),
        *(_entries(results, kind, points, digits, scale.factor) for kind in KINDS),
    ]
    figure = go.Figure([*traces, _ring("solid"), _ring("dot")], _front_layout(scale.title, quality))
    return _with_generations(figure, results, scale.factor) if cloud else figure


def history_figure(results: Results) -> go.Figure:
    """Hypervolume against the images made so far."""
    history = results.history
    trace = go.Scatter(
        x=[g.images for g in history],
        y=[g.hypervolume for g in history],
        text=[f"generation {g.number}, {duration_text(g.seconds)}, {g.front_size} on the front" for g in history],
        mode="lines+markers",
        marker={"size": 5},
        line={"color": LIGHT["found"], "width": 2, "shape": "hv"},
        hovertemplate="%{text}<br>%{x:,} images, hypervolume %{y:.4g}<extra></extra>",
    )
    across, up = axis("images made", rangemode="tozero"), axis("hypervolume", automargin=True)
    return go.Figure([trace], layout(280, {"l": 50, "r": 12, "t": 12, "b": 44}, xaxis=across, yaxis=up))


def guesses_figure(results: Results) -> go.Figure:
    """What the surrogate expected of candidates against what was found; a perfect one would be on the line."""
    found = [guess.found for guess in results.guesses]
    expected = [guess.expected for guess in results.guesses]
    ends = [min(found + expected), max(found + expected)]
    line = go.Scatter(x=ends, y=ends, mode="lines", line={"color": LIGHT["muted"], "width": 1}, hoverinfo="skip")
    points = go.Scatter(
        x=expected,
        y=found,
        text=[f"generation {guess.generation}" for guess in results.guesses],
        mode="markers",
        marker={"color": LIGHT["found"], "size": 6, "opacity": faintness(len(found))},
        hovertemplate="%{text}<br>expected %{x:.4g}, found %{y:.4g}<extra></extra>",
    )
    name = escaped(results.quality_name)
    across, up = axis(f"{name} expected", automargin=True), axis(f"{name} found", automargin=True)
    return go.Figure([line, points], layout(280, {"l": 50, "r": 12, "t": 12, "b": 44}, xaxis=across, yaxis=up))


def _front_layout(across: str, quality: str) -> dict[str, Any]:
    return layout(
        440,
        {"l": 56, "r": 12, "t": 40, "b": 48},
        xaxis=axis(across, automargin=True),
        yaxis=axis(escaped(quality), automargin=True),
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
        showlegend=True,
        hovermode="closest",
    )


def _cloud(results: Results, candidates: Sequence[Candidate], factor: float, opacity: float, first: int = 0) -> Any:
    """Evaluated candidates; `first` is the place of the first of them among all."""
    start = len(results.entries) + first
    return go.Scatter(
        x=[candidate.macs / factor for candidate in candidates],
        y=[candidate.quality for candidate in candidates],
        mode="markers",
        name="evaluated",
        marker={"color": LIGHT["candidate"], "size": 5, "opacity": opacity or faintness(len(candidates))},
        customdata=list(range(start, start + len(candidates))),
        text=[f"generation {one.generation}, {macs_text(one.macs)}MACs" for one in candidates],
        hovertemplate="%{text}, %{y:.4g}<extra></extra>",
        showlegend=bool(candidates),
    )


def _line(factor: float, corners: Sequence[tuple[float, float]]) -> go.Scatter:
    return go.Scatter(
        x=[cost / factor for cost, _ in corners],
        y=[quality for _, quality in corners],
        mode="lines",
        line={"color": LIGHT["found"], "width": 1.5, "shape": "hv"},
        hoverinfo="skip",
        showlegend=False,
    )


def _entries(results: Results, kind: str, points: Sequence[Point], digits: int, factor: float) -> go.Scatter:
    """One trace a kind of entry; hand-made ones and the uncached one carry their names."""
    points = [point for point in points if point.entry.kind == kind]
    return go.Scatter(
        x=[point.cost / factor for point in points],
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
        marker={"color": LIGHT[kind], "size": 11 if len(points) <= 12 else 8, "symbol": _SYMBOLS[kind]},
        text=[f"  {escaped(point.entry.name)}  " for point in points],
        textposition="middle left" if kind == "uncached" else "middle right",
        textfont={"color": LIGHT[kind], "size": 12},
        customdata=[point.place for point in points],
        hovertext=[
            f"<b>{escaped(point.entry.name)}</b><br>{macs_text(point.entry.macs)}MACs<br>{_quality_text(point, digits)}"
            for point in points
        ],
        hovertemplate="%{hovertext}<extra></extra>",
        showlegend=bool(points),
        cliponaxis=False,
    )


def _with_generations(figure: go.Figure, results: Results, factor: float) -> go.Figure:
    """Frames that show what each generation brought, and the front as it was then."""
    generation = np.array([candidate.generation for candidate in results.candidates])
    macs = np.array([candidate.macs for candidate in results.candidates])
    quality = np.array([candidate.quality for candidate in results.candidates])
    # The newest of all, and as many earlier ones as a slider can hold.
    ends = np.unique(np.linspace(generation.max(), 0, min(FRAMES, int(generation.max()) + 1)).round().astype(int))
    frames, front_so_far, before = [], np.zeros(0, dtype=int), 0
    for end in ends.tolist():
        upto = int(np.searchsorted(generation, end, side="right"))
        pool = np.concatenate([front_so_far, np.arange(before, upto)])
        front_so_far = pool[pareto(macs[pool], quality[pool])]
        new = _cloud(results, results.candidates[before:upto], factor, 1.0, first=before)
        new.marker.color = LIGHT["baseline"]
        line = _line(factor, [(float(macs[i]), float(quality[i])) for i in front_so_far])
        frames.append(go.Frame(name=str(end), data=[new, line], traces=[0, 1]))
        before = upto
    figure.frames = [*frames, go.Frame(name="all", data=[figure.data[0], figure.data[1]], traces=[0, 1])]
    at_once = {"mode": "immediate", "frame": {"duration": 0, "redraw": False}, "transition": {"duration": 0}}
    steps = [{"label": f.name, "method": "animate", "args": [[f.name], at_once]} for f in figure.frames]
    figure.layout.sliders = [{"steps": steps, "active": len(steps) - 1, "currentvalue": {"prefix": "generation "}}]
    return figure


def _quality_text(point: Point, digits: int) -> str:
    if point.low == point.high:
        return f"{point.quality:.{digits}f}"
    return score_text(Interval(point.quality, point.low, point.high), digits)


def _ring(dash: str) -> go.Scatter:
    marker = {"symbol": "circle-open" if dash == "solid" else "circle-open-dot", "size": 20, "color": LIGHT["ink"]}
    return go.Scatter(x=[], y=[], mode="markers", marker=marker, hoverinfo="skip", showlegend=False)
