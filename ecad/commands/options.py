"""Options that several commands share."""

from __future__ import annotations

import math
from typing import Annotated

import typer

# Larger counts are mistyped, and would end in a lack of memory.
MOST = 1_000_000
MOST_STEPS = 10_000
MOST_PIXELS = 65_536


def finite(value: float | None) -> float | None:
    """Refuse a number that is infinite or none, which ranges let through."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"expected a finite number, found {value}")
    return value


ExecutorOption = Annotated[
    str, typer.Option("--executor", help="local: processes of this machine; ray: a Ray cluster.")
]


WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers", min=1, max=MOST, help="Most workers at once. Default: 1; with ray, all there is room for."
    ),
]


AddressOption = Annotated[
    str | None, typer.Option("--address", help="Of a Ray cluster: auto or host:port; without, one is started here.")
]


GpusOption = Annotated[
    float | None,
    typer.Option(
        "--gpus-per-worker",
        min=0,
        callback=finite,
        help="GPUs per worker, or a fraction. Default: 1 if any.",
    ),
]


TimeoutOption = Annotated[
    float,
    typer.Option("--task-timeout", min=1, callback=finite, help="Seconds until a silent worker is replaced."),
]


FileMode = Annotated[
    str | None,
    typer.Option(
        "--file-mode",
        "--format",
        "-m",
        help="Format of the prompt file: text, json, jsonl, csv, tsv, parquet or mjhq. By default its suffix says it.",
    ),
]


Pixels = Annotated[int | None, typer.Option(min=1, max=MOST_PIXELS, help="Pixels. Default: the generator's own.")]


Steps = Annotated[int | None, typer.Option(min=1, max=MOST_STEPS, help="Denoising steps. Default: the schedule's.")]


Guidance = Annotated[float | None, typer.Option(min=0, callback=finite, help="Guidance scale.")]


ScoreBatch = Annotated[int, typer.Option("--batch-size", "-b", min=1, max=MOST, help="Images scored together.")]


Weights = Annotated[str | None, typer.Option(help="Hub id or local folder of the pipeline to use instead.")]


RequireExact = Annotated[
    bool, typer.Option("--require-exact", help="Refuse a schedule that was made for other conditions.")
]


ImageGeneratorOption = Annotated[
    str, typer.Option(help="A name that `ecad models` lists, or any pipeline's folder, hub id or .json.")
]


Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]


AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
