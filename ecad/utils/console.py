"""Terminal output: results on stdout, messages and progress bars on stderr."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from rich.console import Console, ConsoleDimensions
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")

# Columns of what goes into a file or a pipe, where a line is a record and nobody sees the screen's edge.
_UNBOUNDED = 10_000


class _Console(Console):
    """A console that wraps lines on a terminal, and nowhere else."""

    @property  # type: ignore[misc]
    def size(self) -> ConsoleDimensions:
        found = super().size
        return found if self.is_terminal else ConsoleDimensions(_UNBOUNDED, found.height)


console = _Console(soft_wrap=True)
stderr = _Console(stderr=True, soft_wrap=True)


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
