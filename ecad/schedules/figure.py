"""A schedule as a plotly figure: what is recomputed at which step in which block."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from ecad.schedules import CacheSchedule
from ecad.schedules.fields import Bits
from ecad.utils.plot_style import LIGHT, axis, escaped, layout

_MANY_BLOCKS = 30
# Where the heat map ends and the bars beside and above it begin, as a fraction of the figure.
_MAP_END = 0.86
# What the heat map can show: its colour scale, and the text of a cell.
LOOKS = {
    "recomputed": {"colorscale": [[0, LIGHT["reuse"]], [1, LIGHT["found"]]], "says": "%{z:.0%} recomputed"},
    "age": {"colorscale": [[0, LIGHT["reuse"]], [1, LIGHT["baseline"]]], "says": "%{z:.1f} steps old"},
    "difference": {
        "colorscale": [[0, LIGHT["baseline"]], [0.5, LIGHT["reuse"]], [1, LIGHT["found"]]],
        "says": "%{z:+.0%} recomputed",
    },
}


def schedule_figure(schedule: CacheSchedule, component: str | None = None, *, ages: bool = False) -> go.Figure:
    """A heat map with steps across and blocks down, and bars with the share recomputed by step and by block.

    Args:
        schedule: the schedule to show.
        component: show only this component, in the blocks that have it; None for all.
        ages: show the age of the outputs in steps (mean over the components) instead of the share that is recomputed.

    >>> from ecad.schedules import heuristics, pixart_sites
    >>> schedule_figure(heuristics.every_n(pixart_sites(2), 4, 2), ages=True).data[0].z.tolist()
    [[0.0, 1.0, 0.0, 1.0], [0.0, 1.0, 0.0, 1.0]]
    """
    columns = [i for i, site in enumerate(schedule.sites) if component in (None, site[1])]
    blocks = list(dict.fromkeys(schedule.sites[i][0] for i in columns))
    of_block = np.array([blocks.index(schedule.sites[i][0]) for i in columns])
    values = age(schedule.recompute) if ages else schedule.recompute
    cells = np.stack([values[:, columns][:, of_block == i].mean(axis=1) for i in range(len(blocks))])
    bits = schedule.recompute[:, columns]
    look = LOOKS["age" if ages else "recomputed"]
    names, steps = [escaped(block) for block in blocks], list(range(schedule.num_steps))
    of_blocks = [float(bits[:, of_block == i].mean()) for i in range(len(blocks))]
    heat_map = go.Heatmap(
        z=cells.astype(np.float32),
        x=steps,
        y=names,
        zmin=0,
        zmax=max(1.0, float(cells.max())) if ages else 1,
        xgap=1,
        ygap=1 if len(blocks) <= _MANY_BLOCKS else 0,
        showscale=False,
        colorscale=look["colorscale"],
        hovertemplate=f"step %{{x}}, block %{{y}}: {look['says']}<extra></extra>",
    )
    bars = {"marker": {"color": LIGHT["candidate"]}, "width": 0.8}
    above = go.Bar(
        x=steps, y=bits.mean(axis=1).tolist(), yaxis="y2", hovertemplate="step %{x}: %{y:.0%}<extra></extra>", **bars
    )
    beside = go.Bar(
        x=of_blocks,
        y=names,
        orientation="h",
        xaxis="x2",
        hovertemplate="block %{y}: %{x:.0%}<extra></extra>",
        **bars,
    )
    return go.Figure([heat_map, above, beside], _layout(schedule.num_steps, len(blocks)))


def age(recompute: Bits) -> np.ndarray:
    """How many steps old each output is when it is used.

    Args:
        recompute: bool (steps, sites).

    Returns:
        int (steps, sites), 0 where the output is computed.

    >>> age(np.array([[1], [0], [0], [1]], dtype=bool)).ravel().tolist()
    [0, 1, 2, 0]
    """
    steps = np.arange(len(recompute))[:, None]
    # The first step always computes: there is nothing to reuse yet.
    computed = np.where(recompute, steps, 0)
    return np.asarray(steps - np.maximum.accumulate(computed, axis=0))


def _layout(num_steps: int, num_blocks: int) -> dict[str, object]:
    share = {"range": [0, 1], "showgrid": False, "showticklabels": False}
    return layout(
        290 if num_blocks <= _MANY_BLOCKS else 460,
        {"l": 30, "r": 6, "t": 6, "b": 40},
        xaxis=axis("step", showgrid=False, tick0=0, dtick=-(-num_steps // 10), domain=[0, _MAP_END]),
        # Block keys look like numbers, but some are names such as "single_0": one category each, the first on top.
        yaxis=axis(
            "", type="category", autorange="reversed", showgrid=False, nticks=15, automargin=True, domain=[0, _MAP_END]
        ),
        yaxis2=axis("", domain=[_MAP_END + 0.02, 1], **share),
        xaxis2=axis("", domain=[_MAP_END + 0.02, 1], **share),
        bargap=0,
    )
