"""Searches in processes of their own, which are led step by step and can be killed where one likes.

The processes are forked from a server that has imported what they need, so that starting one takes no time.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import synthetic
import synthetic_worker
from few_offspring import rank_few
from python_path import python_path

from ecad.genetic.search import search

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["led_search", "synthetic_worker", "ecad.genetic.algorithms.nsga2"])


class Led:
    """A process that says when it has come to its next step, and goes on when it is told to."""

    def __init__(self, target: Callable[..., None], *arguments: Any) -> None:
        _start_server()
        self._pipe, theirs = _CONTEXT.Pipe()
        self.process = _CONTEXT.Process(target=target, args=(theirs, *arguments))
        self.process.start()
        theirs.close()

    def arrives(self) -> bool:
        """Wait for the next step; False if the process has ended instead."""
        try:
            self._pipe.recv()
            return True
        except EOFError:
            return False

    def proceed(self) -> None:
        self._pipe.send(None)

    def kill(self) -> int:
        """Kill it; returns what `join` does."""
        self.process.kill()
        return self.join()

    def join(self) -> int:
        """Let it end; returns its exit code, minus the signal that killed it."""
        self.process.join()
        self._pipe.close()
        assert self.process.exitcode is not None
        return self.process.exitcode


def search_in_batches(pipe: Connection, folder: Path, mode: str, generations: int) -> None:
    """The search of `synthetic`; a step is a batch of images."""
    rank_few()
    plain = synthetic.evaluator()

    def generate(schedule, items):
        pipe.send("batch")
        pipe.recv()
        return plain.generate(schedule, items)

    led = synthetic.evaluator(generate=generate)
    search(synthetic.problem(), led, folder, mode=mode, generations=generations, population_size=6)


def search_on_workers(pipe: Connection, folder: Path, options: dict[str, Any]) -> None:
    """The search of `synthetic_worker`; a step is a candidate, and it goes on without being told."""
    rank_few()

    def on_progress(_: object) -> None:
        pipe.send("candidate")
        time.sleep(0.02)

    synthetic_worker.run(folder, on_progress=on_progress, **options)


def _start_server() -> None:
    """By PYTHONPATH the server finds what it imports, and the workers of the processes that it forks find theirs."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = python_path()
    try:
        forkserver.ensure_running()
    finally:
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before
