"""The driver's side: gives tasks to workers, and sees to it that each is done once whatever befalls the workers.

A task that fails (it raises, its worker dies or does not answer in time) is tried again, on another worker if there is
one; after three tries it is given up, with the last reason, and the others go on.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from ecad.errors import EcadError
from ecad.execution.tasks import Attempt, Failure, Source, Task
from ecad.execution.worker import Greeting, Reply, node_versions

TRIES = 3
# So many failures in a row may be the worker's fault: it makes room for a new one.
_SUSPECT = 2
# So many workers in a row that die while they load: the next ones would, too.
_HOPELESS = 3
# Seconds between two looks at the clock and at the cluster.
_TICK = 1.0


class Workers(Protocol):
    """Where workers come from: `local.LocalWorkers` or `on_ray.RayWorkers`."""

    def wanted(self, unfit: int) -> int:
        """How many workers there should be now, those that are unfit included."""
        ...

    def start(self) -> int:
        """Begin to build a worker, whose number is given; its first reply is `ready` or `unfit`."""
        ...

    def send(self, worker: int, payload: Any) -> None:
        """Give a task to a worker that has none."""
        ...

    def wait(self, seconds: float) -> list[tuple[int, Reply]]:
        """The replies that are there, or come within some seconds. A worker that `died` is no more."""
        ...

    def stop(self, worker: int) -> None:
        """End a worker at once; it replies no more."""
        ...

    def close(self) -> None:
        """End all workers."""
        ...


@dataclass(eq=False)
class _Worker:
    """What the driver knows of a worker; times in seconds on the executor's clock."""

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


class Executor:
    """Runs tasks on workers; a context that ends them.

    Args:
        workers: where workers come from.
        timeout: seconds after which a worker that does not answer is ended and its task tried again.
        log: file for the tracebacks of what failed; none is kept without.
        tell: called with one line about each fault.
        clock: seconds that have passed.

    Raises:
        EcadError: while running, if there is no fit worker (its reason), or none of the first tasks can be done.
    """

    def __init__(
        self,
        workers: Workers,
        timeout: float,
        log: Path | None = None,
        tell: Callable[[str], None] = lambda line: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._workers, self._timeout, self._log, self._tell, self._clock = workers, timeout, log, tell, clock
        self._crew: dict[int, _Worker] = {}
        self._gone: list[_Worker] = []
        self._greeting: Greeting | None = None
        self._want = self._deaths = self._done = self._given_up = 0
        self._hopeless = ""
        self._idle: set[int] = set()
        self._looked = self._checked = -float("inf")

    def __enter__(self) -> Executor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all workers."""
        self._workers.close()
        for worker in list(self._crew.values()):
            self._dismiss(worker)

    @property
    def facts(self) -> dict[str, Any]:
        """What the workers' jobs say of themselves; waits for the first of them."""
        while self._greeting is None:
            self._recruit()
            for number, reply in self._workers.wait(_TICK):
                self._hear(number, reply)
        return self._greeting.facts

    def run(self, tasks: Iterable[Task | None]) -> Iterator[tuple[int, Any]]:
        """Do tasks, several at once.

        Args:
            tasks: taken one by one, when a worker is free for it. None says that there may be more when the next result
                is known.

        Yields:
            (place among the tasks, result), in the order in which they end; the result of a task that was given up is a
            `Failure`.
        """
        source, again = Source(tasks), deque[Attempt]()
        at_work: set[Attempt] = set()
        while True:
            self._recruit()
            self._hand_out(source, again, at_work)
            if source.ended and not again and not at_work:
                return
            ended = []
            for number, reply in [*self._workers.wait(_TICK), *self._overdue()]:
                attempt = self._hear(number, reply)
                if attempt not in at_work:
                    continue  # nobody waits for it any more
                at_work.remove(attempt)
                if reply.kind == "done":
                    self._done += 1
                    ended.append((attempt.index, reply.value))
                elif len(attempt.tried_by) < TRIES:
                    again.append(attempt)
                else:
                    ended.append((attempt.index, self._give_up(attempt, str(reply.value))))
            # No worker waits while the caller thinks about what has come.
            self._hand_out(source, again, at_work)
            yield from ended
            source.paused = source.paused and not ended

    def finish(self, tasks: Iterable[Task]) -> Iterator[tuple[int, Any]]:
        """`run`, where every task counts.

        Raises:
            EcadError: after all others are done, if tasks were given up.
        """
        failures = []
        for place, result in self.run(tasks):
            if isinstance(result, Failure):
                failures.append(result)
            else:
                yield place, result
        if failures:
            reason = f"the last: {failures[-1].reason}{self._see}"
            raise EcadError(f"{len(failures)} tasks were given up; {reason}; the same command tries them again")

    def status(self) -> str:
        """One line: how many workers, and how busy they have been."""
        ready = [worker for worker in self._crew.values() if worker.ready is not None]
        return f"{len(ready)} of {max(len(ready), self._want)} workers, {self.utilisation:.0%} busy"

    @property
    def utilisation(self) -> float:
        """The share of the workers' time, from being ready on, that they spent on tasks."""
        present = sum(self._present(worker) for worker in self._everybody)
        return sum(self._busy(worker) for worker in self._everybody) / present if present else 0.0

    def summary(self) -> list[dict[str, Any]]:
        """Who did what: one row a worker, with its place, tasks done, tries that failed, seconds there and busy."""
        return [
            {
                "worker": worker.place,
                "tasks": worker.done,
                "failed": worker.failed,
                "seconds": round(self._present(worker), 3),
                "busy_seconds": round(self._busy(worker), 3),
            }
            for worker in self._everybody
            if worker.ready is not None
        ]

    @property
    def _everybody(self) -> list[_Worker]:
        return [*self._gone, *self._crew.values()]

    def _present(self, worker: _Worker) -> float:
        if worker.ready is None:
            return 0.0
        return (self._clock() if worker.left is None else worker.left) - worker.ready

    def _busy(self, worker: _Worker) -> float:
        return worker.busy + (self._clock() - worker.since if worker.attempt else 0.0)

    def _recruit(self) -> None:
        """Start the workers that are missing."""
        if self._clock() - self._looked >= _TICK:
            self._looked = self._clock()
            before, self._want = self._want, self._workers.wanted(sum(bool(w.unfit) for w in self._crew.values()))
            if self._want > before:  # a node joined: its workers may live
                self._deaths, self._hopeless = 0, ""
            while len(self._crew) < self._want and not self._hopeless:
                number = self._workers.start()
                self._crew[number] = _Worker(number)
        if all(worker.unfit for worker in self._crew.values()):
            reasons = [self._hopeless, *(worker.unfit for worker in self._crew.values())]
            if reason := next(filter(None, reasons), None):
                raise EcadError(f"no worker can do the work: {reason}{self._see}")

    def _hand_out(self, source: Source, again: deque[Attempt], at_work: set[Attempt]) -> None:
        """Give every idle worker a task: what failed elsewhere first."""
        able = {worker.number for worker in self._crew.values() if worker.ready is not None} if again else set()
        for number in sorted(self._idle):
            worker = self._crew[number]
            fresh = (one for one in again if number not in one.tried_by or able <= {*one.tried_by})
            if attempt := next(fresh, None):
                again.remove(attempt)
            elif (attempt := source.next()) is None:
                if not again:
                    return
                continue
            self._idle.remove(number)
            attempt.tried_by.append(worker.number)
            worker.attempt, worker.since = attempt, self._clock()
            at_work.add(attempt)
            self._workers.send(worker.number, attempt.task.payload)

    def _overdue(self) -> list[tuple[int, Reply]]:
        """End the workers whose tasks take too long."""
        now = self._clock()
        if now - self._checked < _TICK:
            return []
        self._checked = now
        late = [worker for worker in self._crew.values() if worker.attempt and now - worker.since > self._timeout]
        for worker in late:
            self._workers.stop(worker.number)
        return [(worker.number, Reply("died", f"no answer within {self._timeout:g} s")) for worker in late]

    def _hear(self, number: int, reply: Reply) -> Attempt | None:
        """Take note of a reply; gives the task that it ends."""
        if (worker := self._crew.get(number)) is None:
            return None
        if reply.kind == "ready":
            self._welcome(worker, reply.value)
        elif reply.kind == "unfit":
            self._refuse(worker, reply.value, reply.log)
        elif worker.attempt is None:  # it died
            self._dismiss(worker)
            if worker.ready is None and not worker.unfit:
                self._mourn(worker, reply)
            else:
                self._tell(f"worker {worker.place}: {reply.value}; another one takes its place")
        else:
            return self._end(worker, worker.attempt, reply)
        return None

    def _end(self, worker: _Worker, attempt: Attempt, reply: Reply) -> Attempt:
        worker.busy += self._clock() - worker.since if reply.kind == "died" else reply.seconds
        worker.attempt = None
        self._idle.add(worker.number)
        if reply.kind == "done":
            worker.done += 1
            worker.in_a_row = 0
            return attempt
        worker.failed += 1
        worker.in_a_row += 1
        self._report(f"{attempt.task.label}: try {len(attempt.tried_by)} of {TRIES} failed on {worker.place}", reply)
        if reply.kind == "died":
            self._dismiss(worker)
        elif worker.in_a_row >= _SUSPECT:
            self._workers.stop(worker.number)
            self._dismiss(worker)
        return attempt

    def _welcome(self, worker: _Worker, greeting: Greeting) -> None:
        self._deaths, self._hopeless = 0, ""
        worker.place = greeting.place
        expected = {**node_versions(), **(self._greeting or greeting).facts}
        for name, found in {**greeting.versions, **greeting.facts}.items():
            if expected.get(name) != found:
                here = "here" if name in greeting.versions else "on the others"
                text = f"{name}: expected {_short(expected.get(name))} as {here}, found {_short(found)}"
                self._refuse(worker, f"{greeting.place}: {text}", "")
                return
        self._greeting = self._greeting or greeting
        worker.ready = self._clock()
        self._idle.add(worker.number)

    def _refuse(self, worker: _Worker, reason: str, log: str) -> None:
        """It keeps its place, so that its replacement gets another one; but it is given no work."""
        worker.unfit = reason
        self._report("worker left out", Reply("unfit", reason, log))

    def _mourn(self, worker: _Worker, reply: Reply) -> None:
        self._deaths += 1
        self._report("worker died while it was loading", reply)
        if self._deaths >= _HOPELESS:
            self._hopeless = f"{_HOPELESS} in a row died while they were loading: {reply.value}"

    def _dismiss(self, worker: _Worker) -> None:
        worker.left = self._clock()
        self._gone.append(self._crew.pop(worker.number))
        self._idle.discard(worker.number)
        self._looked = -float("inf")

    def _give_up(self, attempt: Attempt, reason: str) -> Failure:
        self._given_up += 1
        if not self._done and self._given_up >= _HOPELESS:
            raise EcadError(f"the first {_HOPELESS} tasks failed, each {TRIES} times; the last: {reason}{self._see}")
        self._tell(f"{attempt.task.label}: given up after {TRIES} tries: {reason}{self._see}")
        return Failure(reason, TRIES)

    def _report(self, what: str, reply: Reply) -> None:
        """One line to the user, all of it to the log."""
        line = f"{what}: {reply.value}"
        if self._log is None:
            self._tell(line)
            return
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with open(self._log, "a", encoding="utf-8") as stream:
            now = datetime.now().isoformat(sep=" ", timespec="seconds")
            stream.write(f"{now} {line}\n{reply.log}\n" if reply.log else f"{now} {line}\n")
        self._tell(f"{line}{self._see}")

    @property
    def _see(self) -> str:
        return "" if self._log is None else f" (see {self._log})"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
