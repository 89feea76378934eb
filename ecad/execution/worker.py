"""A worker's side: its job is built once from a description, then runs one task after the other."""

from __future__ import annotations

import importlib
import os
import platform
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ecad.errors import EcadError
from ecad.utils.versions import versions


@dataclass(frozen=True)
class WorkerSpec:
    """Describes a worker in plain values, so that any process on any machine can build it.

    Args:
        factory: `package.module:function`, called with the options; returns a `Job`.
        options: keyword arguments of the factory.
    """

    factory: str
    options: Mapping[str, Any]


class Job(NamedTuple):
    """What a worker does; made by a factory.

    Args:
        work: maps a task's payload to its result, both plain values or arrays.
        facts: JSON values that results depend on; all workers must have the same.
    """

    work: Callable[[Any], Any]
    facts: dict[str, Any]


class Reply(NamedTuple):
    """A message from a worker.

    Args:
        kind: `ready` or `unfit` (could not be built), `done` or `failed` for a task, or `died`.
        value: a `WorkerInfo`, a result, or the error on one line.
        log: the traceback of the error.
        seconds: time spent on the task.
    """

    kind: str
    value: Any
    log: str = ""
    seconds: float = 0.0


class WorkerInfo(NamedTuple):
    """What a worker reports when it is ready: host and process id, package versions, and the facts of its job."""

    place: str
    versions: dict[str, str]
    facts: dict[str, Any]


def build(spec: WorkerSpec, node: str = "") -> tuple[Callable[[object], object] | None, Reply]:
    """Build a worker's job; `node` distinguishes nodes on one host. Never raises."""
    place = f"{socket.gethostname()}{node}:{os.getpid()}"
    try:
        # One thread per worker, whether or not PyTorch is already imported.
        os.environ["OMP_NUM_THREADS"] = "1"
        module, function = spec.factory.split(":")
        factory = getattr(importlib.import_module(module), function)
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(1)
        job: Job = factory(**spec.options)
        return job.work, Reply("ready", WorkerInfo(place, worker_versions(), job.facts))
    except Exception as error:
        return None, Reply("unfit", f"{place}: {one_line(error)}", traceback.format_exc())


def attempt(work: Callable[[object], object], payload: object) -> Reply:
    """Run a task. Never raises."""
    began = time.monotonic()
    try:
        result = work(payload)
        return Reply("done", result, seconds=time.monotonic() - began)
    except Exception as error:
        return Reply("failed", one_line(error), traceback.format_exc(), time.monotonic() - began)


def worker_versions() -> dict[str, str]:
    """The versions that all workers must share: Python (minor release) and the packages that results depend on."""
    return {**versions(), "python": ".".join(platform.python_version_tuple()[:2])}


def one_line(error: BaseException) -> str:
    """An error as one line; the class is named unless it is an `EcadError`."""
    text = " ".join(str(error).split())
    return text if isinstance(error, EcadError) else f"{type(error).__name__}: {text}"
