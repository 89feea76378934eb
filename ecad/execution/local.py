"""Workers that are processes on this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any

from ecad.errors import EcadError
from ecad.execution.worker import Reply, WorkerSpec, attempt, build

# Seconds that workers have to exit on their own.
_GRACE = 2.0
_VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass
class _Process:
    process: Any
    pipe: connection.Connection
    slot: int


class LocalWorkers:
    """Single-threaded processes, each with a job of its own.

    Args:
        spec: what each worker is built from.
        count: the number of workers.
        gpus_per_worker: the number of GPUs that each worker has alone, or its share of one; None means 1 if there are
            any.

    Raises:
        EcadError: there are too few GPUs.
    """

    def __init__(self, spec: WorkerSpec, count: int, gpus_per_worker: float | None = None) -> None:
        self._spec, self._count = spec, count
        gpus = [] if gpus_per_worker == 0 else _gpus()
        self._devices = split_gpus(gpus, count, float(bool(gpus)) if gpus_per_worker is None else gpus_per_worker)
        self._processes: dict[int, _Process] = {}
        self._started = 0

    def wanted(self, unfit: int) -> int:
        return self._count

    def start(self) -> int:
        context = multiprocessing.get_context("spawn")
        slot = min(set(range(self._count)) - {known.slot for known in self._processes.values()})
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self._spec, self._devices[slot]), daemon=True)
        process.start()
        theirs.close()
        self._started += 1
        self._processes[self._started] = _Process(process, ours, slot)
        return self._started

    def send(self, worker: int, payload: object) -> None:
        with suppress(OSError):  # it died: `wait` reports that
            self._processes[worker].pipe.send(payload)

    def wait(self, seconds: float) -> list[tuple[int, Reply]]:
        ends = {known.pipe: number for number, known in self._processes.items()}
        replies = []
        for pipe in connection.wait(list(ends), seconds):
            number = ends[pipe]  # type: ignore[index]
            try:
                replies.append((number, self._processes[number].pipe.recv()))
            except (EOFError, OSError):
                replies.append((number, self._reap(number)))
        return replies

    def stop(self, worker: int) -> None:
        known = self._processes.pop(worker)
        known.process.kill()
        known.process.join()
        known.pipe.close()

    def close(self) -> None:
        # An idle worker sees its pipe close and exits cleanly; a busy one is killed after the grace period.
        for known in self._processes.values():
            known.pipe.close()
        until = time.monotonic() + _GRACE
        for known in self._processes.values():
            known.process.join(max(0.0, until - time.monotonic()))
        for worker in list(self._processes):
            self.stop(worker)

    def _reap(self, worker: int) -> Reply:
        known = self._processes.pop(worker)
        known.process.join()
        known.pipe.close()
        code = known.process.exitcode
        cause = f"killed by signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return Reply("died", f"its process ended ({cause})")


def split_gpus(gpus: list[str], workers: int, each: float) -> list[Mapping[str, str]]:
    """Environment variables that show each worker its GPUs only.

    Args:
        gpus: ids of the GPUs.
        workers: the number of workers.
        each: the number of GPUs per worker, or a worker's share of one; 0 for none.

    Returns:
        one mapping per worker.

    Raises:
        EcadError: there are too few GPUs.

    >>> split_gpus(["4", "5"], workers=4, each=0.5)[2:]
    [{'CUDA_VISIBLE_DEVICES': '5'}, {'CUDA_VISIBLE_DEVICES': '5'}]
    """
    if not each:
        return [{} for _ in range(workers)]
    per_gpu = max(1, int(1 / each + 1e-9))
    size = max(1, round(each))
    needed = -(-workers // per_gpu) * size
    if needed > len(gpus):
        raise EcadError(
            f"`gpus_per_worker` {each:g}: {workers} workers need {needed} GPUs, found {len(gpus)}; reduce `workers`, "
            "or let several workers share a GPU with `gpus_per_worker` 0.5"
        )
    first = [worker // per_gpu * size for worker in range(workers)]
    return [{_VISIBLE: ",".join(gpus[start : start + size])} for start in first]


def _gpus() -> list[str]:
    if _VISIBLE in os.environ:
        return [name for name in os.environ[_VISIBLE].split(",") if name]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def _serve(pipe: connection.Connection, spec: WorkerSpec, environment: Mapping[str, str]) -> None:
    """Run a worker process: build its job, then answer tasks until the pipe closes."""
    # The driver handles Ctrl-C and ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_driver, daemon=True).start()
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    os.environ.update(environment)
    work, info = build(spec)
    with suppress(EOFError, OSError):
        pipe.send(info)
        while True:
            payload = pipe.recv()
            assert work is not None
            pipe.send(attempt(work, payload))


def _exit_with_driver() -> None:
    driver = multiprocessing.parent_process()
    assert driver is not None
    driver.join()
    os._exit(1)
