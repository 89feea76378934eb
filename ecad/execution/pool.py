"""Starts the workers that settings ask for, and reports what they did."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecad.errors import EcadError
from ecad.execution.executor import Executor
from ecad.execution.worker import WorkerSpec
from ecad.execution.workers import Workers
from ecad.utils.console import say

FAILURES = "failures.log"


@dataclass(frozen=True)
class WorkerSettings:
    """Where work runs.

    Args:
        executor: "local" for processes on this machine, "ray" for a Ray cluster.
        workers: the number of workers; None means 1, with Ray as many as the cluster has room for.
        address: of a Ray cluster, "auto" or "host:port"; None takes RAY_ADDRESS, or starts a cluster on this machine.
        gpus_per_worker: GPUs per worker, or a worker's share of one; None means 1 if there are any.
        task_timeout: seconds after which a worker that does not answer is replaced.

    Raises:
        EcadError: the executor is unknown, or an address is given without Ray.
    """

    executor: str = "local"
    workers: int | None = None
    address: str | None = None
    gpus_per_worker: float | None = None
    task_timeout: float = 3600.0

    def __post_init__(self) -> None:
        if self.executor not in ("local", "ray"):
            raise EcadError(f"`executor` {self.executor!r} is unknown: expected local or ray")
        if self.executor == "local" and self.address is not None:
            raise EcadError("`address` names a Ray cluster: set `executor` to ray as well, or leave it out")

    @property
    def in_process(self) -> bool:
        """Whether the work runs in this process, as is fastest with one worker."""
        return self.executor == "local" and (self.workers or 1) == 1

    @contextmanager
    def open(self, factory: str, options: Mapping[str, object], log_folder: Path) -> Iterator[Executor]:
        """Start workers, and end them with the context; then print one line per host that says what they did.

        Args:
            factory: `package.module:function` that builds a worker's job.
            options: the factory's keyword arguments, plain values.
            log_folder: folder of `failures.log`, which is written if anything fails.

        Raises:
            EcadError: Ray is not installed, the cluster cannot be reached, or there are too few GPUs.
        """
        with Executor(
            self._workers(WorkerSpec(factory, options)), self.task_timeout, log_folder / FAILURES, say
        ) as executor:
            yield executor
        for line in summary_by_host(executor.summary()):
            say(line)

    def _workers(self, spec: WorkerSpec) -> Workers:
        if self.executor == "ray":
            from ecad.execution.on_ray import RayWorkers

            return RayWorkers(spec, self.workers, self.address, self.gpus_per_worker)
        from ecad.execution.local import LocalWorkers

        return LocalWorkers(spec, self.workers or 1, self.gpus_per_worker)


def shared_path(path: str | os.PathLike[str] | None) -> str | None:
    """An existing path made absolute, so that workers find it; anything else, such as a hub id, is unchanged."""
    return path if path is None else os.path.abspath(path) if os.path.exists(path) else os.fspath(path)


def summary_by_host(summary: Iterable[dict[str, Any]]) -> list[str]:
    """One line per host: its workers, their tasks, and how busy they were."""
    hosts = defaultdict(list)
    for row in summary:
        hosts[row["worker"].rsplit(":", 1)[0]].append(row)
    lines = []
    for host, rows in sorted(hosts.items()):
        total = {name: sum(row[name] for row in rows) for name in ("tasks", "failed", "seconds", "busy_seconds")}
        share = total["busy_seconds"] / total["seconds"] if total["seconds"] else 0.0
        line = f"{host}: {len(rows)} workers, {total['tasks']} tasks, {share:.0%} busy"
        lines.append(line + (f", {total['failed']} tries failed" if total["failed"] else ""))
    return lines
