"""What happens inside a worker: it is built once from a description, then does one task after the other."""

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
    """What a worker is built from, as plain values, so that any process on any machine can build it.

    Args:
        factory: `package.module:function`, called with the options; returns a `Job`.
        options: keyword arguments of the factory.
    """

    factory: str
    options: Mapping[str, Any]


class Job(NamedTuple):
    """What a factory makes.

    Args:
        work: a task's payload -> its result, plain values or arrays both.
        facts: JSON values that results depend on and the driver wants to know; all workers must have the same.
    """

    work: Callable[[Any], Any]
    facts: dict[str, Any]


class Reply(NamedTuple):
    """What comes back from a worker.

    Args:
        kind: `ready` to work, `unfit` for it, `done` or `failed` with a task, or `died`.
        value: a `Greeting`, a result, or what went wrong on one line.
        log: the traceback of what went wrong.
        seconds: spent on the task.
    """

    kind: str
    value: Any
    log: str = ""
    seconds: float = 0.0


class Greeting(NamedTuple):
    """How a worker that is ready introduces itself."""

    place: str
    versions: dict[str, str]
    facts: dict[str, Any]


def build(spec: WorkerSpec, node: str = "") -> tuple[Callable[[Any], Any] | None, Reply]:
    """Build a worker's job; `node` tells nodes of one host apart. Never raises."""
    place = f"{socket.gethostname()}{node}:{os.getpid()}"
    try:
        # One thread each, whether or not PyTorch has been loaded by now.
        os.environ["OMP_NUM_THREADS"] = "1"
        module, function = spec.factory.split(":")
        factory = getattr(importlib.import_module(module), function)
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(1)
        job: Job = factory(**spec.options)
        return job.work, Reply("ready", Greeting(place, node_versions(), job.facts))
    except Exception as error:
        return None, Reply("unfit", f"{place}: {one_line(error)}", traceback.format_exc())


def attempt(work: Callable[[Any], Any], payload: Any) -> Reply:
    """Do a task. Never raises."""
    began = time.monotonic()
    try:
        result = work(payload)
        return Reply("done", result, seconds=time.monotonic() - began)
    except Exception as error:
        return Reply("failed", one_line(error), traceback.format_exc(), time.monotonic() - began)


def node_versions() -> dict[str, str]:
    """The versions that all workers must share: of Python the minor release, and of what results depend on."""
    return {**versions(), "python": ".".join(platform.python_version_tuple()[:2])}


def one_line(error: BaseException) -> str:
    """An error as one line: a user's mistake says it itself, anything else goes by its class."""
    text = " ".join(str(error).split())
    return text if isinstance(error, EcadError) else f"{type(error).__name__}: {text}"
