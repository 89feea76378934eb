"""Runs functions in forked copies of this process, which may die or hang without affecting it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from typing import Any

_FORK = multiprocessing.get_context("fork")


def in_copy(work: Callable[[], Any], seconds: float) -> Any:
    """The result of a function in a copy of this process; None if the copy died or exceeded the time limit."""
    copy = _Copy(work)
    try:
        return copy.answer(seconds)
    finally:
        copy.end()


def in_processes(count: int, work: Callable[[int], Any], seconds: float = 120) -> list[Any]:
    """The results of a function in several copies at once, called with their numbers; the first exception ends all."""
    copies = [_Copy(lambda number=number: work(number), own_group=False) for number in range(count)]
    begun, answers = time.monotonic(), []
    try:
        while len(answers) < count and time.monotonic() - begun < seconds:
            for copy in [copy for copy in copies if copy.receiver.poll(0.05)]:
                answers.append(copy.answer(0))
                copies.remove(copy)
                if isinstance(answers[-1], Exception):
                    return answers
        if len(answers) < count:
            return [*answers, TimeoutError(f"{count - len(answers)} of {count} processes gave no answer")]
        return answers
    finally:
        for copy in copies:
            copy.end()


class _Copy:
    def __init__(self, work: Callable[[], Any], own_group: bool = True) -> None:
        self.receiver, sender = _FORK.Pipe(duplex=False)
        self.own_group = own_group

        def run() -> None:
            if own_group:
                os.setpgid(0, 0)
            sender.send(work())

        self.process = _FORK.Process(target=run)
        self.process.start()
        sender.close()

    def answer(self, seconds: float) -> Any:
        try:
            return self.receiver.recv() if self.receiver.poll(seconds) else None
        except EOFError:
            return None

    def end(self) -> None:
        """Kill the remaining processes and their children."""
        if self.process.is_alive():
            try:
                if self.own_group:
                    os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.process.kill()
        self.process.join()
