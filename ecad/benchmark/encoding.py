"""What the commands that encode prompts share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ecad.commands import bar, errors, finish
from ecad.execution.command import Spread, everywhere
from ecad.files import make_folder

if TYPE_CHECKING:
    from ecad.prompts.store import Entry

FilePath = Annotated[Path, typer.Option("--file-path", "-f", help="Prompt file.")]
OutputDir = Annotated[Path, typer.Option("--output-dir", "-o", help="Folder for the embeddings.")]
Seed = Annotated[int, typer.Option("--seed", "-s", help="The prompts' own part of the seed of their images' noise.")]
PromptBatchSize = Annotated[int, typer.Option(min=1, help="Prompts encoded together, and kept in one file.")]
SeedStep = Annotated[int, typer.Option(help="From one prompt's seed to the next.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def encode(
    image_generator: str,
    folders: Mapping[str, Sequence[Entry]],
    output_dir: Path,
    batch_size: int,
    weights: str | None,
    device: str,
    as_json: bool,
    spread: Spread,
) -> None:
    """Encode prompts into stores and say what came of it."""
    from ecad.image_generators import get_image_generator
    from ecad.prompts.embed import embed, embed_on, num_batches

    make_folder(output_dir)
    with ExitStack() as stack:
        if spread.in_process:
            generator = get_image_generator(image_generator, weights, device=device, only="text")
            batches, max_tokens = embed(generator, folders, output_dir, batch_size), generator.max_tokens
        else:
            options = {"image_generator": image_generator, "weights": everywhere(weights), "device": device}
            pool = stack.enter_context(spread.open("ecad.prompts.embed:worker", options, output_dir))
            batches = embed_on(pool, folders, output_dir, batch_size)
            max_tokens = pool.facts["settings"]["max_tokens"]
        cut = sum(bar(batches, "encoding", hidden=as_json, total=num_batches(folders, batch_size)))
    if cut:
        errors.print(f"{cut} prompts have more than the {max_tokens} tokens that the model reads: they were cut")
    count = sum(len(entries) for entries in folders.values())
    size = sum(file.stat().st_size for name in folders for file in (output_dir / name).iterdir())
    result: dict[str, Any] = {"prompts": count, "cut": cut, "folders": sorted(folders), "bytes": size}
    finish(result, f"{count} prompts in {output_dir}, {size / count / 1024:.1f} KiB each", as_json)
