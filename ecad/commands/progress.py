"""The progress of a search on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ecad.utils.console import stderr

if TYPE_CHECKING:
    from ecad.genetic.run import Progress as SearchProgress


@contextmanager
def search_progress(
    hidden: bool = False, status: Callable[[], str] | None = None
) -> Iterator[Callable[[SearchProgress], None]]:
    """Show the state of a search on one line that is updated.

    Args:
        hidden: show nothing.
        status: returns more text to show, such as the number of workers.

    Yields:
        the function that `search` calls with its progress.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[left]}"))
    with Progress(*columns, console=stderr, disable=hidden) as progress:
        task = progress.add_task("loading", total=None, left="")

        def show(now: SearchProgress) -> None:
            pace = now.evaluated / now.seconds if now.seconds else 0.0
            description = (
                f"generation {now.generation}: {now.evaluated} candidates ({pace:.1f}/s), "
                f"{now.images} images, front {now.front_size}, hypervolume {now.hypervolume:.4g}"
            )
            progress.update(
                task,
                description=f"{description}, {status()}" if status else description,
                completed=now.seconds,
                total=None if now.seconds_left is None else now.seconds + now.seconds_left,
                left="" if now.seconds_left is None else f"{now.seconds_left:.0f} s left",
            )

        yield show
