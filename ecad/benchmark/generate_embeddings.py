"""`ecad embed`: encode a prompt file."""

from __future__ import annotations

from typing import Annotated

import typer

from ecad.commands.encoding import FilePath, OutputDir, Seed, encode
from ecad.commands.main import main
from ecad.commands.options import (
    MOST,
    AddressOption,
    AsJson,
    Device,
    ExecutorOption,
    GpusOption,
    ImageGeneratorOption,
    TimeoutOption,
    Weights,
    WorkersOption,
)
from ecad.execution.pool import Spread
from ecad.prompts import PromptFile


def embed(
    image_generator: ImageGeneratorOption,
    file_path: FilePath,
    output_dir: OutputDir,
    batch_size: Annotated[
        int, typer.Option("--batch-size", "-b", min=1, max=MOST, help="Prompts encoded together, and kept in one file.")
    ] = 64,
    seed: Seed = 0,
    executor: ExecutorOption = "local",
    workers: WorkersOption = None,
    address: AddressOption = None,
    gpus_per_worker: GpusOption = None,
    task_timeout: TimeoutOption = 3600,
    weights: Weights = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Encode a prompt file: text with one prompt a line, JSON, or a table."""
    from ecad.jobs.encode import numbered

    folders = [(".", numbered(PromptFile(file_path), seed))]
    spread = Spread(executor, workers, address, gpus_per_worker, task_timeout)
    encode(image_generator, folders, output_dir, batch_size, weights, device, as_json, spread)


if __name__ == "__main__":
    main(embed)
