"""Pieces of work: as they are asked for, on their way, and given up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Task(NamedTuple):
    """A piece of work.

    Args:
        label: what to call it when it fails.
        payload: what the worker's job takes, plain values or arrays.
    """

    label: str
    payload: Any


class Failure(NamedTuple):
    """What becomes of a task that is given up: the last reason, and how often it was tried."""

    reason: str
    tries: int


@dataclass(eq=False)
class Attempt:
    """A task on its way."""

    index: int
    task: Task
    tried_by: list[int] = field(default_factory=list)


class Source:
    """Tasks, taken as they are needed."""

    def __init__(self, tasks: Iterable[Task | None]) -> None:
        self._tasks = iter(tasks)
        self._count = 0
        self.paused = self.ended = False

    def next(self) -> Attempt | None:
        if self.paused or self.ended:
            return None
        try:
            task = next(self._tasks)
        except StopIteration:
            self.ended = True
            return None
        if task is None:
            self.paused = True
            return None
        self._count += 1
        return Attempt(self._count - 1, task)
