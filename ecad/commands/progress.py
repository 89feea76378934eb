"""The progress of a search on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ecad.utils.console import stderr


@contextmanager
def search_progress(hidden: bool = False, status: Callable[[], str] | None = None) -> Iterator[Callable[[Any], None]]:
    """Show where a search stands, one line that changes; gives what `search` calls with its progress.

    `status` says what else to show: how many workers, for instance.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[left]}"))
    with Progress(*columns, console=stderr, disable=hidden) as progress:
        task = progress.add_task("loading", total=None, left="")

        def show(now: Any) -> None:
            pace = now.evaluated / now.seconds if now.seconds else 0.0
            known = now.seconds_left is not None
            progress.update(
                task,
                description=f"generation {now.generation}: {now.evaluated} candidates ({pace:.1f}/s), "
                f"{now.images} images, front {now.front_size}, hypervolume {now.hypervolume:.4g}"
                + (f", {status()}" if status else ""),
                completed=now.seconds,
                total=now.seconds + now.seconds_left if known else None,
                left=f"{now.seconds_left:.0f} s left" if known else "",
            )

        yield show
