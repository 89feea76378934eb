"""Terminal output: results on stdout, messages and progress bars on stderr."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")

console = Console()
stderr = Console(stderr=True)


def say(line: str) -> None:
    """Print a message for the user that is not part of the result."""
    stderr.print(line, highlight=False, markup=False, soft_wrap=True)


def bar(items: Iterable[T], label: str, hidden: bool = False, total: int | None = None) -> Iterable[T]:
    """Iterate with a progress bar that shows the elapsed and the estimated remaining time.

    Args:
        items: what to iterate over.
        label: text before the bar.
        hidden: show no bar.
        total: number of items, if `items` has no length.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr, disable=hidden) as progress:
        yield from progress.track(items, description=label, total=total)
