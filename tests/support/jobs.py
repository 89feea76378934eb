"""Jobs for workers, which import this file by its name, and the faults that they are told to have."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path

from ecad.errors import EcadError
from ecad.execution import Job


def squares(folder: str, **facts: object) -> Job:
    """A task is (number, fault); its result is the number's square. `folder` counts the tries."""

    def square(task: tuple[int, str]) -> int:
        number, fault = task
        tries = len(list(Path(folder).glob(f"{number}-*")))
        Path(folder, f"{number}-{tries}").write_text(str(os.getpid()))
        kind, _, times = fault.partition(" ")
        if kind and tries < int(times or 99):
            {"die": die, "raise": fail, "hang": hang, "slow": doze, "wait": partial(wait, Path(folder))}[kind]()
        return number**2

    if os.environ.get("WITHOUT_THE_MODEL"):
        raise EcadError("expected the weights 'flux', found none")
    if facts.pop("die_while_loading", False):
        die()
    if shared := facts.pop("weights_of", None):
        try:
            Path(str(shared), "taken").touch(exist_ok=False)
            facts["weights"] = "first"
        except FileExistsError:
            time.sleep(0.5)
            facts["weights"] = "second"
    return Job(square, dict(facts))


def die() -> None:
    os.kill(os.getpid(), 9)


def fail() -> None:
    raise ValueError("a bad day")


def hang() -> None:
    time.sleep(1000)


def doze() -> None:
    time.sleep(1.5)


def wait(folder: Path) -> None:
    """Until the test writes `go on`."""
    while not (folder / "go on").exists():
        time.sleep(0.05)
