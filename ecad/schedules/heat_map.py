"""A schedule as a heat map in the terminal, readable with and without colour."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
import numpy.typing as npt
from rich.text import Text

from ecad.schedules.schedule import CacheSchedule
from ecad.sites.names import by_block

Shares = npt.NDArray[np.float64]

# From all reused to all recomputed. The glyphs differ in shape, so that they can be read without colour.
_SHADES = (("·", "bright_black"), ("░", "blue"), ("▒", "cyan"), ("▓", "yellow"), ("█", "bright_yellow"))
_MAX_CELL_WIDTH = 3
_MAX_LABEL_LENGTH = 24


def heat_map(schedule: CacheSchedule, width: int = 80, by_component: bool = False) -> Text:
    """Draw steps across and blocks down; the shade is the share of the block's components that recompute.

    Args:
        schedule: the schedule to show.
        width: columns of the terminal; if the steps do not fit, a cell stands for several.
        by_component: draw one map per component, side by side as far as they fit, instead of one for all components.

    >>> from ecad.schedules import heuristics, pixart_sites
    >>> print(heat_map(heuristics.every_n(pixart_sites(2), 6, 3, ["attn1", "ff"]), width=60).plain)
    every_3_attn1_ff
    6 steps × 2 blocks, 36 bits, 55.6% recomputed
        0  1  2  3  4  5
      0 ███░░░░░░███░░░░░░  56%
      1 ███░░░░░░███░░░░░░  56%
    all ███░░░░░░███░░░░░░  56%
    recomputed: · none  ░ few  ▒ half  ▓ most  █ all
    """
    table = f"{schedule.num_steps} steps × {len(schedule.blocks)} blocks, {schedule.recompute.size} bits"
    forecast = ", others extrapolated" if schedule.forecast else ""
    text = Text(f"{schedule.name}\n{table}, {schedule.share_recomputed:.1%} recomputed{forecast}\n", no_wrap=True)
    for labels, panels in _by_component(schedule) if by_component else _together(schedule):
        _append_panels(text, labels, panels, width)
    text.append("recomputed:")
    for (glyph, style), meaning in zip(_SHADES, ("none", "few", "half", "most", "all"), strict=True):
        text.append(f" {glyph}", style).append(f" {meaning} ")
    text.rstrip()
    return text


def _together(schedule: CacheSchedule) -> Iterator[tuple[list[str], dict[str, Shares]]]:
    """One map with a row for each block and a last row for the whole model."""
    blocks = np.array([block for block, _ in schedule.sites])
    rows = [schedule.recompute[:, blocks == block].mean(axis=1) for block in schedule.blocks]
    yield [*schedule.blocks, "all"], {"": np.array([*rows, schedule.recompute.mean(axis=1)])}


def _by_component(schedule: CacheSchedule) -> Iterator[tuple[list[str], dict[str, Shares]]]:
    """For each run of blocks with the same components, one map per component."""
    columns = iter(schedule.recompute.T.astype(np.float64))
    for components, run in groupby(by_block(schedule.sites), key=lambda entry: entry[1]):
        labels = [block for block, _ in run]
        bits = np.array([[next(columns) for _ in components] for _ in labels])
        yield labels, {component: bits[:, i] for i, component in enumerate(components)}


def _append_panels(text: Text, labels: Sequence[str], panels: dict[str, Shares], width: int) -> None:
    """Append maps of the same blocks, as many side by side as fit."""
    shown = [label if len(label) <= _MAX_LABEL_LENGTH else f"…{label[1 - _MAX_LABEL_LENGTH :]}" for label in labels]
    margin = max(map(len, shown))
    room = max(width - margin - 1, 10)
    if "" in panels:
        room -= len(" 100%")
    steps = next(iter(panels.values())).shape[1]
    cell = min(max(room // steps, 1), _MAX_CELL_WIDTH if "" in panels else 1)
    columns = np.array_split(np.arange(steps), min(steps, room))
    ruler = _ruler([int(column[0]) for column in columns], cell)
    panel_width = max(len(ruler), *map(len, panels))
    beside = max(1, (room + 2) // (panel_width + 2))
    titles = list(panels)
    for first in range(0, len(titles), beside):
        line = titles[first : first + beside]
        for heading in (line, [ruler] * len(line)):
            if any(heading):
                row = "  ".join(part.ljust(panel_width) for part in heading)
                text.append(f"{'':{margin}} {row}".rstrip() + "\n")
        for i, label in enumerate(shown):
            gap = f"{label:>{margin}} "
            for title in line:
                text.append(gap)
                _append_row(text, panels[title][i], columns, cell)
                gap = " " * (panel_width - cell * len(columns) + 2)
            text.append(f" {panels[''][i].mean():4.0%}\n" if "" in panels else "\n")


def _append_row(text: Text, shares: Shares, columns: Sequence[npt.NDArray[np.intp]], cell: int) -> None:
    for column in columns:
        glyph, style = _SHADES[_shade(float(shares[column].mean()))]
        text.append(glyph * cell, style)


def _shade(share: float) -> int:
    """The glyph for a share. Only exactly none and exactly all get the outer glyphs."""
    if share in (0.0, 1.0):
        return 4 * int(share)
    return 1 if share < 0.4 else 3 if share > 0.6 else 2


def _ruler(steps: Sequence[int], cell: int) -> str:
    """The step numbers above their cells, as many as fit."""
    every = 1 if cell > len(str(steps[-1])) else 5
    line = ""
    for i in range(0, len(steps), every):
        line = line.ljust(i * cell) + str(steps[i])
    return line.ljust(len(steps) * cell)[: len(steps) * cell]
