"""Lines and progress bars on the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def say(line: str) -> None:
    """One line to the user that is not the result."""
    errors.print(line, highlight=False, markup=False, soft_wrap=True)


T = TypeVar("T")


console = Console()


errors = Console(stderr=True)


def bar(items: Iterable[T], label: str, hidden: bool = False, total: int | None = None) -> Iterable[T]:
    """Iterate with a progress bar that shows a rate and an estimate; `total` where the items do not know it."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors, disable=hidden) as progress:
        yield from progress.track(items, description=label, total=total)
