"""Sends the progress of a search to TensorBoard, MLflow or Weights & Biases, where these are installed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from ecad.errors import EcadError
from ecad.genetic.run import Progress

# (values, candidates so far) -> None
Log = Callable[[dict[str, float], int], None]


@contextmanager
def tracker(name: str, folder: str | os.PathLike[str]) -> Iterator[Callable[[Progress], None]]:
    """Log a search to a tracker; the run ends with the context.

    Args:
        name: one of `tracker_names()`.
        folder: of the study. TensorBoard writes into its folder `tensorboard`; the runs of the others have its name.

    Yields:
        what `search` takes as `on_progress`. The values of `Progress` are logged by the number of candidates.

    Raises:
        EcadError: there is no such tracker, or its package is not installed.
    """
    package = imported_tracker(name)
    with _TRACKERS[name](package, Path(folder)) as log:

        def on_progress(now: Progress) -> None:
            values = {key: value for key, value in asdict(now).items() if value is not None}
            log(values, int(values.pop("evaluated")))

        yield on_progress


def tracker_names() -> list[str]:
    """The trackers that there are.

    >>> tracker_names()
    ['mlflow', 'tensorboard', 'wandb']
    """
    return sorted(_TRACKERS)


def imported_tracker(name: str) -> Any:
    """The module of a tracker.

    Raises:
        EcadError: there is no such tracker, or its package is not installed.
    """
    if name not in _TRACKERS:
        raise EcadError(f"tracker {name!r} is unknown: expected one of {', '.join(tracker_names())}")
    try:
        return import_module("torch.utils.tensorboard" if name == "tensorboard" else name)
    except ImportError as error:
        raise EcadError(f"{name} is not installed: run pip install {name}") from error


@contextmanager
def _tensorboard(package: ModuleType, folder: Path) -> Iterator[Log]:
    with package.SummaryWriter(folder / "tensorboard") as writer:

        def log(values: dict[str, float], step: int) -> None:
            for key, value in values.items():
                writer.add_scalar(key, value, step)

        yield log


@contextmanager
def _mlflow(package: ModuleType, folder: Path) -> Iterator[Log]:
    with package.start_run(run_name=folder.resolve().name):
        yield lambda values, step: package.log_metrics(values, step=step)


@contextmanager
def _wandb(package: ModuleType, folder: Path) -> Iterator[Log]:
    with package.init(project="ecad", name=folder.resolve().name) as run:
        yield lambda values, step: run.log(values, step=step)


_TRACKERS: dict[str, Callable[[ModuleType, Path], AbstractContextManager[Log]]] = {
    "tensorboard": _tensorboard,
    "mlflow": _mlflow,
    "wandb": _wandb,
}
