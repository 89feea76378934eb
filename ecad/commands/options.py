"""Options that several commands share.

`grouped_options` turns a parameter that is a dataclass into one flag per field. So a command receives one object, and
a group of flags is defined once.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Literal, get_type_hints

import typer

from ecad.execution.pool import WorkerSettings, shared_path

if TYPE_CHECKING:
    from ecad.image_generators import ImageGenerator

# Larger counts are mistakes, and would run out of memory.
MOST = 1_000_000
MOST_STEPS = 10_000
MOST_PIXELS = 65_536
_DEVICES = {"auto", "cpu", "cuda", "mps", "xpu", "npu", "hpu"}


def finite(value: float | None) -> float | None:
    """Refuse an infinite number and NaN, which ranges let through."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"expected a finite number, found {value}")
    return value


def known_device(name: str) -> str:
    """Refuse the name of a device that PyTorch cannot know; whether it is there, is found out when it is used."""
    if name.split(":")[0] not in _DEVICES:
        raise typer.BadParameter(f"expected auto, cpu, cuda, cuda:N or mps, found {name!r}")
    return name


FileMode = Annotated[
    str | None,
    typer.Option(
        "--file-mode",
        "--format",
        "-m",
        help="Format of prompt files: text, json, jsonl, csv, tsv, parquet or mjhq. Default: the file's suffix.",
    ),
]
Pixels = Annotated[int | None, typer.Option(min=1, max=MOST_PIXELS, help="Pixels. Default: the generator's own.")]
Steps = Annotated[int | None, typer.Option(min=1, max=MOST_STEPS, help="Denoising steps. Default: the schedule's.")]
Guidance = Annotated[float | None, typer.Option(min=0, callback=finite, help="Guidance scale.")]
ScoreBatch = Annotated[int, typer.Option("--batch-size", "-b", min=1, max=MOST, help="Batch size of scoring.")]
Weights = Annotated[str | None, typer.Option(help="Hub id or local folder of the pipeline's weights.")]
RequireExact = Annotated[
    bool, typer.Option("--require-exact", help="Reject a schedule that was made for other conditions.")
]
ImageGeneratorOption = Annotated[
    str, typer.Option(help="A name from `ecad models`, or the folder, hub id or .json of any pipeline.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace what is there, if it is of other prompts or settings.")
]
Device = Annotated[str, typer.Option(callback=known_device, help="auto, cpu, cuda or mps.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@dataclass(frozen=True)
class WorkerOptions(WorkerSettings):
    """The flags of commands that can use several workers."""

    executor: Annotated[str, typer.Option(help="local: processes on this machine; ray: a Ray cluster.")] = (
        WorkerSettings.executor
    )
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=MOST, help="Number of workers; default: 1, or as many as a Ray cluster has room for."),
    ] = WorkerSettings.workers
    address: Annotated[
        str | None,
        typer.Option(help="Ray cluster to use: auto or host:port; by default a new one on this machine."),
    ] = WorkerSettings.address
    gpus_per_worker: Annotated[
        float | None,
        typer.Option(min=0, callback=finite, help="GPUs per worker, possibly a fraction; default: 1 if there are any."),
    ] = WorkerSettings.gpus_per_worker
    task_timeout: Annotated[
        float,
        typer.Option(min=1, callback=finite, help="Seconds after which a worker that does not answer is replaced."),
    ] = WorkerSettings.task_timeout


@dataclass(frozen=True)
class ModelOptions:
    """The flags of commands that load an image generator."""

    weights: Weights = None
    device: Device = "auto"

    def check(self, image_generator: str) -> None:
        """Refuse a name that `load` would refuse, before torch is imported."""
        from ecad.image_generators import check_image_generator

        check_image_generator(image_generator, self.weights)

    def load(self, image_generator: str, only: Literal["text", "images"] | None = None) -> ImageGenerator:
        """Load a generator in this process; see `get_image_generator`."""
        from ecad.image_generators import get_image_generator

        return get_image_generator(image_generator, self.weights, device=self.device, only=only)

    def for_workers(self, image_generator: str) -> dict[str, str | None]:
        """The arguments with which any process loads the generator."""
        from ecad.image_generators import found_everywhere

        return {
            "image_generator": found_everywhere(image_generator),
            "weights": shared_path(self.weights),
            "device": self.device,
        }


def grouped_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one flag per field of each parameter that is a dataclass.

    Args:
        command: a typer command. The fields of its dataclasses are annotated as typer's parameters are.

    Returns:
        a command with the flags as parameters, all by keyword; it calls the given one with the dataclasses' instances.

    >>> @dataclass(frozen=True)
    ... class Size:
    ...     height: Annotated[int, typer.Option(help="Pixels.")] = 64
    ...     width: Annotated[int, typer.Option(help="Pixels.")] = 64
    >>> @grouped_options
    ... def show(name: str, size: Size) -> None:
    ...     print(name, size.height * size.width)
    >>> list(inspect.signature(show).parameters)
    ['name', 'height', 'width']
    >>> show(name="icon", height=32)
    icon 2048
    """
    hints = get_type_hints(command, include_extras=True)
    own = inspect.signature(command).parameters
    groups = {name: hints[name] for name in own if is_dataclass(hints[name])}

    @wraps(command)
    def grouped(**values: object) -> None:
        objects = {
            name: group(**{field.name: values.pop(field.name) for field in fields(group) if field.name in values})
            for name, group in groups.items()
        }
        command(**values, **objects)

    flags: list[inspect.Parameter] = []
    for name, parameter in own.items():
        if name in groups:
            flags += _flags(groups[name])
        else:
            flags.append(parameter.replace(annotation=hints[name], kind=parameter.KEYWORD_ONLY))
    grouped.__signature__ = inspect.Signature(flags)  # type: ignore[attr-defined]
    grouped.__annotations__ = {flag.name: flag.annotation for flag in flags}
    return grouped


def _flags(group: type) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    for field in fields(group):
        default = inspect.Parameter.empty if field.default is MISSING else field.default
        yield inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hints[field.name]
        )
