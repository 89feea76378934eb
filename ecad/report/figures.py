"""Plots of a search as plotly figures, for the page and for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go

from ecad.report.results import Interval, Results
from ecad.report.summary import (
    Cost,
    Point,
    cost_axis,
    cost_of,
    decimals,
    duration_text,
    front,
    held_out_points,
    macs_text,
    opacity_of,
    score_text,
    search_points,
)
from ecad.utils.pareto import pareto
from ecad.utils.plot_style import KINDS, LIGHT, axis, escaped, layout

# Positions of the slider over generations.
FRAMES = 60
# More points take a browser seconds to draw. The slider's generations show all points.
MAX_POINTS = 1200
_SYMBOLS = {"uncached": "square", "baseline": "diamond", "found": "circle"}


def front_figure(results: Results, scorer: str | None = None, cost: Cost = "macs") -> go.Figure:
    """Plot quality against cost.

    Args:
        results: what to show.
        scorer: one of `results.scorers`, for held-out scores with 95% intervals. None for quality on the search
            prompts, with all candidates, and a slider over the generations if the cost is known for all of them.
        cost: "macs", measured "time", "expected" time, or "memory" of the cache.

    Returns:
        a figure. The customdata of a point is the position of its entry in `results.ordered()`; positions beyond the
        last entry are those of candidates. The last two traces are empty and mark chosen points.
    """
    scale = cost_axis(results, cost)
    points = search_points(results, cost) if scorer is None else held_out_points(results, scorer, cost)
    digits = 3 if scorer is None else decimals(results, scorer)
    quality = f"{results.quality_name} score, search prompts" if scorer is None else f"{scorer} score, held-out prompts"
    candidates = _candidate_points(results, cost, scale.factor) if scorer is None else None
    traces = [
        _evaluated(candidates),
        _line(scale.factor, [(p.cost, p.quality) for p in front([q for q in points if q.entry.kind == "found"])]),
        *(_entries(results, kind, points, digits, scale.factor) for kind in KINDS),
    ]
    figure = go.Figure([*traces, _ring("solid"), _ring("dot")], _front_layout(scale.title, quality))
    return _with_generations(figure, candidates) if candidates else figure


def history_figure(results: Results) -> go.Figure:
    """Plot the hypervolume against the number of images made."""
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


def surrogate_figure(results: Results) -> go.Figure:
    """Plot the quality that the surrogate predicted against the quality that was measured."""
    found = [guess.found for guess in results.guesses]
    expected = [guess.expected for guess in results.guesses]
    ends = [min(found + expected), max(found + expected)]
    line = go.Scatter(x=ends, y=ends, mode="lines", line={"color": LIGHT["muted"], "width": 1}, hoverinfo="skip")
    points = go.Scatter(
        x=expected,
        y=found,
        text=[f"generation {guess.generation}" for guess in results.guesses],
        mode="markers",
        marker={"color": LIGHT["found"], "size": 6, "opacity": opacity_of(len(found))},
        hovertemplate="%{text}<br>predicted %{x:.4g}, measured %{y:.4g}<extra></extra>",
    )
    name = escaped(results.quality_name)
    across, up = axis(f"predicted {name}", automargin=True), axis(f"measured {name}", automargin=True)
    return go.Figure([line, points], layout(280, {"l": 50, "r": 12, "t": 12, "b": 44}, xaxis=across, yaxis=up))


def _front_layout(across: str, quality: str) -> dict[str, object]:
    return layout(
        440,
        {"l": 56, "r": 12, "t": 40, "b": 48},
        xaxis=axis(across, automargin=True),
        yaxis=axis(escaped(quality), automargin=True),
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
        showlegend=True,
        hovermode="closest",
    )


class _Candidates(NamedTuple):
    """The points of the candidates: coordinates, generations, customdata and texts."""

    x: np.ndarray
    y: np.ndarray
    generation: np.ndarray
    customdata: np.ndarray
    text: np.ndarray

    def trace(self, chosen: np.ndarray | slice, colour: str, opacity: float, name: str = "evaluated") -> go.Scatter:
        return go.Scatter(
            x=self.x[chosen].tolist(),
            y=self.y[chosen].tolist(),
            mode="markers",
            name=name,
            marker={"color": LIGHT[colour], "size": 5, "opacity": opacity},
            customdata=self.customdata[chosen].tolist(),
            text=self.text[chosen].tolist(),
            hovertemplate="%{text}, %{y:.4g}<extra></extra>",
            showlegend=bool(len(self.x[chosen])),
        )


def _candidate_points(results: Results, cost: Cost, factor: float) -> _Candidates | None:
    costs = [cost_of(one, cost) for one in results.candidates]
    if not costs or any(one is None for one in costs):
        return None
    return _Candidates(
        np.array(costs, dtype=float) / factor,
        np.array([one.quality for one in results.candidates]),
        np.array([one.generation for one in results.candidates]),
        np.arange(len(costs), dtype=np.int32) + len(results.entries),
        np.array([f"generation {one.generation}, {macs_text(one.macs)}MACs" for one in results.candidates]),
    )


def _evaluated(candidates: _Candidates | None) -> go.Scatter:
    """All candidates, or as many as a browser can draw."""
    if candidates is None:
        return go.Scatter(x=[], y=[], mode="markers", name="evaluated", showlegend=False)
    chosen, count = thinned(candidates.x, candidates.y), len(candidates.x)
    name = "evaluated" if len(chosen) == count else f"evaluated ({len(chosen):,} of {count:,})"
    return candidates.trace(chosen, "candidate", opacity_of(len(chosen)), name)


def thinned(cost: np.ndarray, quality: np.ndarray, most: int = MAX_POINTS) -> np.ndarray:
    """Choose points to draw: from every range of costs the best ones, and some of the others.

    Args:
        cost, quality: (n,).
        most: largest number of points.

    Returns:
        int indices, ascending.

    >>> thinned(np.array([1, 2, 3]), np.array([5, 5, 5])).tolist()
    [0, 1, 2]
    """
    if len(cost) <= most:
        return np.arange(len(cost))
    kept = []
    # Eight from every range, half of them nearest to the front.
    for part in np.array_split(np.argsort(cost, kind="stable"), most // 8):
        best_first = part[np.argsort(-quality[part], kind="stable")]
        kept += [best_first[:4], best_first[np.linspace(4, len(part) - 1, 4).round().astype(int)]]
    return np.unique(np.concatenate(kept))


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
    """The trace of one kind of entries; hand-made ones and the uncached one are labelled with their names."""
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
        customdata=[point.position for point in points],
        hovertext=[
            f"<b>{escaped(point.entry.name)}</b><br>{macs_text(point.entry.macs)}MACs<br>{_quality_text(point, digits)}"
            for point in points
        ],
        hovertemplate="%{hovertext}<extra></extra>",
        showlegend=bool(points),
        cliponaxis=False,
    )


def _with_generations(figure: go.Figure, candidates: _Candidates) -> go.Figure:
    """Add a frame for each generation, with its candidates and the front at that time."""
    newest = int(candidates.generation.max())
    # The newest generation, and as many earlier ones as the slider has positions.
    ends = np.unique(np.linspace(newest, 0, min(FRAMES, newest + 1)).round().astype(int))
    frames, front_so_far, before = [], np.zeros(0, dtype=int), 0
    for end in ends.tolist():
        upto = int(np.searchsorted(candidates.generation, end, side="right"))
        pool = np.concatenate([front_so_far, np.arange(before, upto)])
        front_so_far = pool[pareto(candidates.x[pool], candidates.y[pool])]
        line = _line(1.0, [(float(candidates.x[i]), float(candidates.y[i])) for i in front_so_far])
        new = candidates.trace(slice(before, upto), "baseline", 1.0)
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
