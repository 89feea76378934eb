"""Terminal output: results on stdout, messages and progress bars on stderr."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console, ConsoleDimensions
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")

# Seconds between two lines of a job whose output goes into a file or a pipe.
HEARTBEAT = 30.0
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


@contextmanager
def heartbeat(line: Callable[[], str], hidden: bool = False) -> Iterator[None]:
    """Say a line every `HEARTBEAT` seconds while a block runs, for output that no progress bar can be drawn on."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(HEARTBEAT):
            say(line())

    thread = threading.Thread(target=beat, daemon=True)
    if not hidden:
        thread.start()
    try:
        yield
    finally:
        done.set()
        if not hidden:
            thread.join()


def bar(items: Iterable[T], label: str, hidden: bool = False, total: int | None = None) -> Iterable[T]:
    """Iterate with a progress bar that shows the elapsed and the estimated remaining time; off a terminal, with lines.

    Args:
        items: what to iterate over.
        label: text before the bar.
        hidden: show no bar.
        total: number of items, if `items` has no length.
    """
    if not stderr.is_terminal:
        return _lines(items, label, hidden, total)
    return _bar(items, label, hidden, total)


@contextmanager
def share_bar(label: str, hidden: bool = False) -> Iterator[Callable[[float], None]]:
    """A progress bar, or lines off a terminal; yields the function to call with the part that is done, 0 to 1."""
    if stderr.is_terminal:
        with Progress(console=stderr, disable=hidden) as progress:
            task = progress.add_task(label, total=1.0)
            yield lambda done: progress.update(task, completed=done)
        return
    share = 0.0

    def show(done: float) -> None:
        nonlocal share
        share = done

    with heartbeat(lambda: f"{label}: {share:.0%}", hidden):
        yield show


def _lines(items: Iterable[T], label: str, hidden: bool, total: int | None) -> Iterator[T]:
    count = len(items) if total is None and isinstance(items, Sized) else total
    done, began = 0, time.monotonic()

    def line() -> str:
        return f"{label}: {done}{'' if count is None else f' of {count}'}, {time.monotonic() - began:.0f} s"

    with heartbeat(line, hidden):
        for item in items:
            yield item
            done += 1
    if not hidden:
        say(line())


def _bar(items: Iterable[T], label: str, hidden: bool, total: int | None) -> Iterator[T]:
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
