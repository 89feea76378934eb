"""The report in the terminal: headline, table, a small plot of the front, and the progress of the search."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ecad.report.results import Results
from ecad.report.summary import (
    cost_axis,
    duration_text,
    front,
    headline,
    held_out_points,
    main_scorer,
    quality_text,
    search_points,
)
from ecad.report.table import rich_table

_WIDTH, _HEIGHT = 72, 18


def show_text(results: Results, console: Console) -> None:
    """Print results."""
    console.print(Text(headline(results)))
    console.print()
    console.print(Text(front_text(results)))
    console.print(rich_table(results))
    if results.history:
        console.print(_history(results))


def front_text(results: Results, width: int = _WIDTH, height: int = _HEIGHT) -> str:
    """Plot the front with characters: held-out scores if there are any, or else scores on the search prompts.

    Args:
        results: what to show.
        width, height: size of the plot in characters.
    """
    import plotext

    scorer, scale = main_scorer(results), cost_axis(results, "macs")
    points = held_out_points(results, scorer) if scorer else search_points(results)
    if not points and not results.candidates:
        return "No schedule has been measured yet."
    # plotext has a single global figure.
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plotsize(width, height)
    if scorer is None and results.candidates:
        pairs = [(one.macs / scale.factor, one.quality) for one in results.candidates]
        plotext.scatter(*map(list, zip(*pairs, strict=True)), marker="·", label="evaluated")
    for kind, marker, label in (("baseline", "x", "hand-made"), ("found", "●", "found by the search")):
        chosen = [point for point in points if point.entry.kind == kind]
        if chosen:
            shown = front(chosen) if kind == "found" else chosen
            plotext.scatter(
                [p.cost / scale.factor for p in shown], [p.quality for p in shown], marker=marker, label=label
            )
    plotext.xlabel(scale.title)
    plotext.title(f"{scorer or results.quality_name}, {'held-out' if scorer else 'search'} prompts")
    return "\n".join(line.rstrip() for line in str(plotext.uncolorize(plotext.build())).splitlines())


def _history(results: Results) -> Table:
    last = results.history[-1]
    made = Table(title="Search", title_justify="left")
    for name in ("generations", "schedules", "images", "time", "hypervolume", "surrogate error"):
        made.add_column(name, justify="right")
    errors = sorted(abs(guess.expected - guess.found) for guess in results.guesses)
    made.add_row(
        str(len(results.history)),
        f"{len(results.candidates):,}",
        f"{last.images:,}",
        duration_text(last.seconds),
        f"{last.hypervolume:.4g}",
        quality_text(errors[len(errors) // 2] if errors else None),
    )
    made.caption = "surrogate error: median absolute difference of predicted and measured quality"
    return made
