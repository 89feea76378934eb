"""`ecad embed`: encode a prompt file."""

from __future__ import annotations

from typing import Annotated

import typer

from ecad.commands.encoding import FilePath, OutputDir, Seed, encode
from ecad.commands.main import loading, main
from ecad.commands.options import (
    MOST,
    AsJson,
    FileMode,
    ImageGeneratorOption,
    ModelOptions,
    Overwrite,
    WorkerOptions,
    grouped_options,
)
from ecad.prompts import PromptFile


@grouped_options
def embed(
    *,
    image_generator: ImageGeneratorOption,
    file_path: FilePath,
    output_dir: OutputDir,
    file_format: FileMode = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", "-b", min=1, max=MOST, help="Batch size, and number of prompts per file.")
    ] = 64,
    seed: Seed = 0,
    workers: WorkerOptions,
    model: ModelOptions,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Encode a prompt file: text with one prompt per line, JSON, JSON lines, CSV, TSV or Parquet."""
    model.check(image_generator)
    prompts = PromptFile(file_path, file_format)  # type: ignore[arg-type]
    loading(image_generator, as_json)
    from ecad.jobs.encode import numbered

    folders = [(".", numbered(prompts, seed))]
    encode(folders, output_dir, batch_size, image_generator, model, workers, overwrite, as_json)


if __name__ == "__main__":
    main(embed)
