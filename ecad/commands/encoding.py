"""What the commands that encode prompts share."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ecad.commands.main import finish
from ecad.commands.options import MOST, ModelOptions
from ecad.execution.pool import WorkerSettings
from ecad.utils.console import bar, say
from ecad.utils.files import make_folder

if TYPE_CHECKING:
    from ecad.prompts.index import Entry

FilePath = Annotated[Path, typer.Option("--file-path", "-f", help="Prompt file.")]
OutputDir = Annotated[Path, typer.Option("--output-dir", "-o", help="Output folder of the embeddings.")]
Seed = Annotated[int, typer.Option("--seed", "-s", help="The first prompt's part of the noise seed.")]
PromptBatchSize = Annotated[int, typer.Option(min=1, max=MOST, help="Batch size, and number of prompts per file.")]
SeedStep = Annotated[int, typer.Option(help="Difference between the seeds of consecutive prompts.")]


def encode(
    folders: Iterable[tuple[str, Iterable[Entry]]],
    output_dir: Path,
    batch_size: int,
    image_generator: str,
    model: ModelOptions,
    workers: WorkerSettings,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Encode prompts into stores and report how many."""
    from ecad.jobs.encode import embed, embed_on, embedding_settings, num_shards
    from ecad.prompts.store import stores_to_write

    make_folder(output_dir)
    with ExitStack() as stack:
        if workers.in_process:
            generator = model.load(image_generator, only="text")
            settings = embedding_settings(generator)
        else:
            options = model.for_workers(image_generator)
            pool = stack.enter_context(workers.open("ecad.jobs.encode:worker", options, output_dir))
            settings = pool.facts["settings"]
        stores = stack.enter_context(stores_to_write(output_dir, folders, settings, batch_size, overwrite))
        in_process = workers.in_process
        batches = embed(generator, output_dir, stores) if in_process else embed_on(pool, output_dir, stores)
        cut = sum(bar(batches, "encoding", hidden=as_json, total=num_shards(stores)))
    if cut:
        say(f"{cut} prompts have more than the {settings['max_tokens']} tokens that the model reads: they were cut")
    count = sum(map(len, stores.values()))
    size = sum(file.stat().st_size for name in stores for file in (output_dir / name).iterdir())
    result: dict[str, object] = {"prompts": count, "cut": cut, "folders": sorted(stores), "bytes": size}
    finish(result, f"{count} prompts in {output_dir}, {size / count / 1024:.1f} KiB each", as_json)
