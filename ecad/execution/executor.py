"""The driver's side: runs each task exactly once, despite worker failures.

A failed task (it raises, or its worker dies or times out) is retried, on another worker if there is one. After three
tries it is given up with the last reason, and the other tasks continue.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from ecad.errors import EcadError
from ecad.execution.tasks import Attempt, Failure, Source, Task
from ecad.execution.worker import Reply, WorkerInfo, worker_versions
from ecad.execution.workers import Workers, WorkerState

TRIES = 3
# After this many failures in a row a worker is replaced: the fault may be its own.
_MAX_FAILURES_IN_A_ROW = 2
# After this many workers in a row have died while loading, no more are started.
_MAX_LOAD_FAILURES = 3
# If this many tasks are given up before any succeeds, the run ends.
_MAX_FIRST_FAILURES = 3
# Interval at which timeouts and the number of workers are checked.
_POLL_SECONDS = 1.0


class Executor:
    """Runs tasks on workers. As a context manager it ends the workers on exit.

    Args:
        workers: starts and stops the workers.
        timeout: seconds after which a worker that does not answer is ended and its task retried.
        log: file that receives the tracebacks of failures; None keeps none.
        notify: called with one line about each failure.
        clock: returns the time in seconds.

    Raises:
        EcadError: while running, if no worker is fit (with its reason), or if all of the first tasks fail.
    """

    def __init__(
        self,
        workers: Workers,
        timeout: float,
        log: Path | None = None,
        notify: Callable[[str], None] = lambda line: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._workers, self._timeout, self._log, self._notify, self._clock = workers, timeout, log, notify, clock
        self._active: dict[int, WorkerState] = {}
        self._former: list[WorkerState] = []
        self._info: WorkerInfo | None = None
        self._wanted = self._load_failures = self._done = self._given_up = 0
        self._load_error = ""
        self._idle: set[int] = set()
        self._last_count = self._last_timeout_check = -float("inf")

    def __enter__(self) -> Executor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all workers."""
        self._workers.close()
        for worker in list(self._active.values()):
            self._remove(worker)

    @property
    def facts(self) -> dict[str, Any]:
        """The facts of the workers' jobs (`Job.facts`); waits until the first worker is ready."""
        while self._info is None:
            self._start_missing()
            for number, reply in self._workers.wait(_POLL_SECONDS):
                self._handle(number, reply)
        return self._info.facts

    def run(self, tasks: Iterable[Task | None]) -> Iterator[tuple[int, Any]]:
        """Run tasks, several at once.

        Args:
            tasks: taken one by one as workers become free. None means that there may be more once the next result is
                known.

        Yields:
            (index of the task, result), in order of completion; the result of a task that was given up is a `Failure`.
        """
        source, retries = Source(tasks), deque[Attempt]()
        running: set[Attempt] = set()
        while True:
            self._start_missing()
            self._assign(source, retries, running)
            if source.ended and not retries and not running:
                return
            ended = []
            for number, reply in [*self._workers.wait(_POLL_SECONDS), *self._overdue()]:
                attempt = self._handle(number, reply)
                if attempt not in running:
                    continue  # of an earlier run that was abandoned
                running.remove(attempt)
                if reply.kind == "done":
                    self._done += 1
                    ended.append((attempt.index, reply.value))
                elif len(attempt.tried_by) < TRIES:
                    retries.append(attempt)
                else:
                    ended.append((attempt.index, self._give_up(attempt, str(reply.value))))
            # No worker stays idle while the caller processes the results.
            self._assign(source, retries, running)
            yield from ended
            source.paused = source.paused and not ended

    def finish(self, tasks: Iterable[Task]) -> Iterator[tuple[int, Any]]:
        """`run`, but fail if any task was given up.

        Raises:
            EcadError: after all other tasks are done, if some were given up.
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
        """One line: the number of workers and their utilisation."""
        ready = [worker for worker in self._active.values() if worker.ready is not None]
        return f"{len(ready)} of {max(len(ready), self._wanted)} workers, {self.utilisation:.0%} busy"

    @property
    def utilisation(self) -> float:
        """The fraction of the workers' time, counted from when they were ready, that they spent on tasks."""
        now = self._clock()
        present = sum(worker.present_seconds(now) for worker in self._all_workers)
        return sum(worker.busy_seconds(now) for worker in self._all_workers) / present if present else 0.0

    def summary(self) -> list[dict[str, object]]:
        """One row per worker: its place, completed tasks, failed tries, seconds present and seconds busy."""
        now = self._clock()
        return [
            {
                "worker": worker.place,
                "tasks": worker.done,
                "failed": worker.failed,
                "seconds": round(worker.present_seconds(now), 3),
                "busy_seconds": round(worker.busy_seconds(now), 3),
            }
            for worker in self._all_workers
            if worker.ready is not None
        ]

    @property
    def _all_workers(self) -> list[WorkerState]:
        return [*self._former, *self._active.values()]

    def _start_missing(self) -> None:
        """Start the workers that are missing."""
        if self._clock() - self._last_count >= _POLL_SECONDS:
            self._last_count = self._clock()
            before, self._wanted = self._wanted, self._workers.wanted(sum(bool(w.unfit) for w in self._active.values()))
            if self._wanted > before:  # a node has joined: its workers may load
                self._load_failures, self._load_error = 0, ""
            while len(self._active) < self._wanted and not self._load_error:
                number = self._workers.start()
                self._active[number] = WorkerState(number)
        if all(worker.unfit for worker in self._active.values()):
            reasons = [self._load_error, *(worker.unfit for worker in self._active.values())]
            if reason := next(filter(None, reasons), None):
                raise EcadError(f"no worker can do the work: {reason}{self._see}")

    def _assign(self, source: Source, retries: deque[Attempt], running: set[Attempt]) -> None:
        """Give every idle worker a task, retries first."""
        able = {worker.number for worker in self._active.values() if worker.ready is not None} if retries else set()
        for number in sorted(self._idle):
            worker = self._active[number]
            fresh = (one for one in retries if number not in one.tried_by or able <= {*one.tried_by})
            if attempt := next(fresh, None):
                retries.remove(attempt)
            elif (attempt := source.next()) is None:
                if not retries:
                    return
                continue
            self._idle.remove(number)
            attempt.tried_by.append(worker.number)
            worker.attempt, worker.since = attempt, self._clock()
            running.add(attempt)
            self._workers.send(worker.number, attempt.task.payload)

    def _overdue(self) -> list[tuple[int, Reply]]:
        """End the workers whose tasks have timed out."""
        now = self._clock()
        if now - self._last_timeout_check < _POLL_SECONDS:
            return []
        self._last_timeout_check = now
        late = [worker for worker in self._active.values() if worker.attempt and now - worker.since > self._timeout]
        for worker in late:
            self._workers.stop(worker.number)
        return [(worker.number, Reply("died", f"no answer within {self._timeout:g} s")) for worker in late]

    def _handle(self, number: int, reply: Reply) -> Attempt | None:
        """Record a reply and return the attempt that it ends, if any."""
        if (worker := self._active.get(number)) is None:
            return None
        if reply.kind == "ready":
            self._on_ready(worker, reply.value)
        elif reply.kind == "unfit":
            self._mark_unfit(worker, reply.value, reply.log)
        elif worker.attempt is None:  # it died
            self._remove(worker)
            if worker.ready is None and not worker.unfit:
                self._on_load_failure(worker, reply)
            else:
                self._notify(f"worker {worker.place}: {reply.value}; it is replaced")
        else:
            return self._end(worker, worker.attempt, reply)
        return None

    def _end(self, worker: WorkerState, attempt: Attempt, reply: Reply) -> Attempt:
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
            self._remove(worker)
        elif worker.in_a_row >= _MAX_FAILURES_IN_A_ROW:
            self._workers.stop(worker.number)
            self._remove(worker)
        return attempt

    def _on_ready(self, worker: WorkerState, info: WorkerInfo) -> None:
        self._load_failures, self._load_error = 0, ""
        worker.place = info.place
        expected = {**worker_versions(), **(self._info or info).facts}
        for name, found in {**info.versions, **info.facts}.items():
            if expected.get(name) != found:
                here = "here" if name in info.versions else "on the others"
                text = f"{name}: expected {_clipped(expected.get(name))} as {here}, found {_clipped(found)}"
                self._mark_unfit(worker, f"{info.place}: {text}", "")
                return
        self._info = self._info or info
        worker.ready = self._clock()
        self._idle.add(worker.number)

    def _mark_unfit(self, worker: WorkerState, reason: str, log: str) -> None:
        """Give the worker no tasks, but keep its place, so that its replacement is started elsewhere."""
        worker.unfit = reason
        self._report("worker left out", Reply("unfit", reason, log))

    def _on_load_failure(self, worker: WorkerState, reply: Reply) -> None:
        self._load_failures += 1
        self._report("worker died while loading", reply)
        if self._load_failures >= _MAX_LOAD_FAILURES:
            self._load_error = f"{_MAX_LOAD_FAILURES} in a row died while loading: {reply.value}"

    def _remove(self, worker: WorkerState) -> None:
        worker.left = self._clock()
        self._former.append(self._active.pop(worker.number))
        self._idle.discard(worker.number)
        self._last_count = -float("inf")

    def _give_up(self, attempt: Attempt, reason: str) -> Failure:
        self._given_up += 1
        if not self._done and self._given_up >= _MAX_FIRST_FAILURES:
            raise EcadError(
                f"the first {_MAX_FIRST_FAILURES} tasks failed, each {TRIES} times; the last: {reason}{self._see}"
            )
        self._notify(f"{attempt.task.label}: given up after {TRIES} tries: {reason}{self._see}")
        return Failure(reason, TRIES)

    def _report(self, what: str, reply: Reply) -> None:
        """Send one line to the user and the whole traceback to the log."""
        line = f"{what}: {reply.value}"
        if self._log is None:
            self._notify(line)
            return
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with open(self._log, "a", encoding="utf-8") as stream:
            now = datetime.now().isoformat(sep=" ", timespec="seconds")
            stream.write(f"{now} {line}\n{reply.log}\n" if reply.log else f"{now} {line}\n")
        self._notify(f"{line}{self._see}")

    @property
    def _see(self) -> str:
        return "" if self._log is None else f" (see {self._log})"


def _clipped(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
