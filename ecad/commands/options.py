"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

ExecutorOption = Annotated[
    str, typer.Option("--executor", help="local: processes of this machine; ray: a Ray cluster.")
]


WorkersOption = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="At most so many at once; by default 1, with ray all there is room for."),
]


AddressOption = Annotated[
    str | None, typer.Option("--address", help="Of a Ray cluster: auto or host:port; without, one is started here.")
]


GpusOption = Annotated[
    float | None,
    typer.Option("--gpus-per-worker", min=0, help="GPUs, or a share of one; by default 1 if there are any."),
]


TimeoutOption = Annotated[
    float, typer.Option("--task-timeout", min=1, help="Seconds after which a silent worker is replaced.")
]


Weights = Annotated[str | None, typer.Option(help="Hub id or local folder of the pipeline to use instead.")]


RequireExact = Annotated[
    bool, typer.Option("--require-exact", help="Refuse a schedule that was made for other conditions.")
]


ImageGeneratorOption = Annotated[
    str, typer.Option(help="A name that `ecad models` lists, or any pipeline's folder, hub id or .json.")
]


Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]


AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
