"""The progress of a search: one line that is updated on a terminal, and a line per generation elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ecad.utils.console import heartbeat, say, stderr

if TYPE_CHECKING:
    from ecad.genetic.run import Progress as SearchProgress

Show = Callable[["SearchProgress"], None]


@contextmanager
def search_progress(hidden: bool = False, status: Callable[[], str] | None = None) -> Iterator[Show]:
    """Show the state of a search.

    Args:
        hidden: show nothing.
        status: returns more text to show, such as the number of workers.

    Yields:
        the function that `search` calls with its progress.
    """
    with _on_terminal(hidden, status) if hidden or stderr.is_terminal else _in_lines(status) as show:
        yield show


@contextmanager
def _on_terminal(hidden: bool, status: Callable[[], str] | None) -> Iterator[Show]:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[left]}"))
    with Progress(*columns, console=stderr, disable=hidden) as progress:
        task = progress.add_task("loading", total=None, left="")

        def show(now: SearchProgress) -> None:
            progress.update(
                task,
                description=_state(now, status),
                completed=now.seconds,
                total=None if now.seconds_left is None else now.seconds + now.seconds_left,
                left=_left(now),
            )

        yield show


@contextmanager
def _in_lines(status: Callable[[], str] | None) -> Iterator[Show]:
    """A line when a generation is over, and one every `HEARTBEAT` seconds."""
    last: SearchProgress | None = None
    began = time.monotonic()

    def line() -> str:
        if last is None:
            return f"no candidate yet, {time.monotonic() - began:.0f} s"
        return described(last, status)

    def show(now: SearchProgress) -> None:
        nonlocal last
        if last is not None and last.generation != now.generation:
            say(line())
        last = now

    say("the search begins")
    try:
        with heartbeat(line):
            yield show
    finally:
        if last is not None:
            say(line())


def described(now: SearchProgress, status: Callable[[], str] | None = None) -> str:
    """The state of a search in one line: what was done, for how long, and how long it may still take."""
    return ", ".join(filter(None, [_state(now, status), f"{now.seconds:.0f} s", _left(now)]))


def _state(now: SearchProgress, status: Callable[[], str] | None) -> str:
    pace = now.evaluated / now.seconds if now.seconds else 0.0
    more = status() if status else ""
    state = (
        f"generation {now.generation}: {now.evaluated} candidates ({pace:.1f}/s), "
        f"{now.images} images, front {now.front_size}, hypervolume {now.hypervolume:.4g}"
    )
    return f"{state}, {more}" if more else state


def _left(now: SearchProgress) -> str:
    return "" if now.seconds_left is None else f"{now.seconds_left:.0f} s left"
