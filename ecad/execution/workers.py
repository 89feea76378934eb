"""The interface of a place where workers run, and the record of each worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ecad.execution.tasks import Attempt
from ecad.execution.worker import Reply


class Workers(Protocol):
    """Starts, feeds and stops workers: `local.LocalWorkers` or `on_ray.RayWorkers`."""

    def wanted(self, unfit: int) -> int:
        """The number of workers that should exist now, including the `unfit` ones."""
        ...

    def start(self) -> int:
        """Begin to build a worker and return its number; its first reply is `ready` or `unfit`."""
        ...

    def send(self, worker: int, payload: object) -> None:
        """Give a task to an idle worker."""
        ...

    def wait(self, seconds: float) -> list[tuple[int, Reply]]:
        """Return (worker, reply) pairs, waiting up to `seconds` for the first. A worker that `died` is removed."""
        ...

    def stop(self, worker: int) -> None:
        """End a worker at once; it sends no further reply."""
        ...

    def close(self) -> None:
        """End all workers."""
        ...


@dataclass(eq=False)
class WorkerState:
    """What the executor records of a worker; times in seconds on the executor's clock."""

    number: int
    place: str = ""
    ready: float | None = None
    left: float | None = None
    unfit: str = ""
    attempt: Attempt | None = None
    since: float = 0.0
    busy: float = 0.0
    done: int = 0
    failed: int = 0
    in_a_row: int = 0

    def present_seconds(self, now: float) -> float:
        """Seconds from being ready until it left, or until now."""
        if self.ready is None:
            return 0.0
        return (now if self.left is None else self.left) - self.ready

    def busy_seconds(self, now: float) -> float:
        """Seconds spent on tasks, the current one included."""
        return self.busy + (now - self.since if self.attempt else 0.0)
