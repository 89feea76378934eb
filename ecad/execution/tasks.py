"""Tasks, their attempts and their failures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple


class Task(NamedTuple):
    """One unit of work.

    Args:
        label: names the task in messages.
        payload: the input of the worker's job, plain values or arrays.
    """

    label: str
    payload: object


class Failure(NamedTuple):
    """The result of a task that was given up: the last error and the number of tries."""

    reason: str
    tries: int


@dataclass(eq=False)
class Attempt:
    """A task that is being tried, and the numbers of the workers that tried it."""

    index: int
    task: Task
    tried_by: list[int] = field(default_factory=list)


class Source:
    """Takes tasks from an iterable one by one; None in it pauses."""

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
