"""The flags of the commands that spread their work, and what becomes of them."""

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
from ecad.utils.console import say

FAILURES = "failures.log"


@dataclass(frozen=True)
class Spread:
    """How a command's work is spread, as its flags say.

    Raises:
        EcadError: the executor is unknown, or a flag is given that it has no use for.
    """

    executor: str = "local"
    workers: int | None = None
    address: str | None = None
    gpus_per_worker: float | None = None
    task_timeout: float = 3600.0

    def __post_init__(self) -> None:
        if self.executor not in ("local", "ray"):
            raise EcadError(f"--executor {self.executor!r} is unknown: expected local or ray")
        if self.executor == "local" and self.address is not None:
            raise EcadError("--address is of a Ray cluster: give --executor ray as well, or leave it out")

    @property
    def in_process(self) -> bool:
        """Whether this process does the work by itself, as is fastest with one worker."""
        return self.executor == "local" and (self.workers or 1) == 1

    @contextmanager
    def open(self, factory: str, options: Mapping[str, Any], log_folder: Path) -> Iterator[Executor]:
        """Workers at work until the end of the context; then a line a host says who did what.

        Args:
            factory: `package.module:function` that builds a worker's job.
            options: the factory's keyword arguments, plain values.
            log_folder: `failures.log` goes into it, if anything fails.

        Raises:
            EcadError: Ray is not there, or there is no such cluster, or not enough GPUs.
        """
        spec = WorkerSpec(factory, options)
        if self.executor == "ray":
            from ecad.execution.on_ray import RayWorkers

            workers: Any = RayWorkers(spec, self.workers, self.address, self.gpus_per_worker)
        else:
            from ecad.execution.local import LocalWorkers

            workers = LocalWorkers(spec, self.workers or 1, self.gpus_per_worker)
        with Executor(workers, self.task_timeout, log_folder / FAILURES, say) as executor:
            yield executor
        for line in by_host(executor.summary()):
            say(line)


def everywhere(path: str | os.PathLike[str] | None) -> str | None:
    """A path as any process finds it, on any machine that shares the folder; what is no path, a hub id, stays."""
    return path if path is None else os.path.abspath(path) if os.path.exists(path) else os.fspath(path)


def by_host(summary: Iterable[dict[str, Any]]) -> list[str]:
    """A line a host: how many workers it had, what they did, and how busy they were."""
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
