"""Workers that are actors of a Ray cluster."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from types import ModuleType
from typing import Any

from ecad.errors import EcadError
from ecad.execution.worker import Reply, WorkerSpec, attempt, build

_CONNECT_TIMEOUT = 5.0


class RayWorkers:
    """Actors with one CPU each, placed by Ray.

    Args:
        spec: what each worker is built from.
        count: the largest number of workers; None for as many as the cluster has room for.
        address: of a cluster, `auto` or `host:port`; None takes RAY_ADDRESS, or starts a cluster on this machine.
        gpus_per_worker: GPUs per worker, or a worker's share of one; None means 1 if the cluster has any.

    Raises:
        EcadError: Ray is not installed, or no cluster answers at that address, or it runs another version.
    """

    def __init__(
        self, spec: WorkerSpec, count: int | None, address: str | None = None, gpus_per_worker: float | None = None
    ) -> None:
        self._ray = _import_ray()
        self._owned = not self._ray.is_initialized()
        self._restore_printing: Callable[[], None] = lambda: None
        if self._owned:
            _connect(self._ray, address or os.environ.get("RAY_ADDRESS") or None, count)
            self._restore_printing = _silence(self._ray)
        self._count = count
        has_gpus = any(node["Resources"].get("GPU") for node in self._nodes())
        self._gpus = gpus_per_worker if gpus_per_worker is not None else float(has_gpus)
        # In the object store, so that each node fetches it once.
        self._spec = self._ray.put(spec)
        self._actor = self._ray.remote(num_cpus=1, num_gpus=self._gpus, max_restarts=0)(_Actor)
        self._actors: dict[int, Any] = {}
        self._expected: dict[object, int] = {}
        self._started = 0

    def wanted(self, unfit: int) -> int:
        room = sum(self._room(node["Resources"]) for node in self._nodes())
        return room if self._count is None else min(room, self._count + unfit)

    def start(self) -> int:
        self._started += 1
        self._actors[self._started] = actor = self._actor.remote(self._spec)
        self._expected[actor.report_ready.remote()] = self._started
        return self._started

    def send(self, worker: int, payload: object) -> None:
        self._expected[self._actors[worker].work.remote(payload)] = worker

    def wait(self, seconds: float) -> list[tuple[int, Reply]]:
        if not self._expected:
            time.sleep(seconds)
            return []
        found, _ = self._ray.wait(list(self._expected), num_returns=1, timeout=seconds)
        if found:
            found, _ = self._ray.wait(list(self._expected), num_returns=len(self._expected), timeout=0)
        return [(self._expected[reference], self._reply(reference)) for reference in found]

    def stop(self, worker: int) -> None:
        self._expected = {reference: number for reference, number in self._expected.items() if number != worker}
        with suppress(self._ray.exceptions.RayError):
            self._ray.kill(self._actors.pop(worker))

    def close(self) -> None:
        for worker in list(self._actors):
            self.stop(worker)
        if self._owned:
            self._ray.shutdown()
        self._restore_printing()

    def _reply(self, reference: object) -> Reply:
        number = self._expected.pop(reference)
        try:
            reply: Reply = self._ray.get(reference)
            return reply
        except self._ray.exceptions.RayError as error:
            self._actors.pop(number, None)
            return Reply("died", _first_line(error), str(error))

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self._ray.nodes() if node["Alive"]]

    def _room(self, resources: dict[str, float]) -> int:
        room = resources.get("CPU", 0.0)
        return int(min(room, resources.get("GPU", 0.0) / self._gpus + 1e-9) if self._gpus else room)


class _Actor:
    """A worker inside Ray."""

    def __init__(self, spec: WorkerSpec) -> None:
        import ray

        node = ray.get_runtime_context().get_node_id()[:6]
        self._work, self._ready = build(spec, f"/{node}")

    def report_ready(self) -> Reply:
        return self._ready

    def work(self, payload: object) -> Reply:
        assert self._work is not None
        return attempt(self._work, payload)


def _import_ray() -> ModuleType:
    # Ray sends usage statistics unless told not to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise EcadError("`executor` ray: Ray is not installed; run pip install ray") from error
    return ray


def _connect(ray: ModuleType, address: str | None, count: int | None) -> None:
    if address is None:
        ray.init(address="local", num_cpus=count, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        return
    if address != "auto":
        _check_reachable(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise EcadError(
            f"`address` {address}: cannot join this Ray cluster: {_first_line(error)}; start one with `ray start "
            "--head`, join this machine to it with `ray start --address=...`, or leave `address` out"
        ) from error


def _silence(ray: ModuleType) -> Callable[[], None]:
    """Keep Ray from printing to standard output, and return a function that lets it print again.

    A thread of Ray's driver prints a paragraph to standard output, where results go, for each worker that dies. No
    public setting stops it (Ray 2.60, `listen_error_messages`: neither `log_to_driver` nor the logging level), so the
    private function that prints is replaced while this process is connected.
    """
    module, name = ray._private.worker, "print_to_stdstream"
    original = getattr(module, name)
    setattr(module, name, lambda *_, **__: None)
    return lambda: setattr(module, name, original)


def _check_reachable(address: str) -> None:
    """Fail at once where nothing listens: Ray itself would wait long for a cluster."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        raise EcadError(f"`address`: expected auto or host:port, found {address!r}")
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_TIMEOUT).close()
    except (OSError, OverflowError) as error:
        raise EcadError(
            f"`address` {address}: no Ray cluster answers there ({error}); `ray start --head` prints its address, "
            "`ray status` shows whether it runs"
        ) from error


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
