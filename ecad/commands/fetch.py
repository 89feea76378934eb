"""`ecad fetch`: download prompt files, reference images and published schedules."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ecad.commands.main import finish
from ecad.errors import EcadError
from ecad.utils.console import console

_NAMES = "coco, mjhq, parti, drawbench, image-reward, published-schedules"


def fetch(
    names: Annotated[list[str], typer.Argument(help=f"What to download: {_NAMES}.")],
    output_dir: Annotated[
        Path,
        typer.Option("--output-dir", "-o", help="Working folder of the commands; gets prompts/ and other folders."),
    ] = Path(),
    prompts_only: Annotated[bool, typer.Option("--prompts-only", help="Skip MJHQ's images (some gigabytes).")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the files as JSON.")] = False,
) -> None:
    """Download prompt files, reference images and published schedules from their public homes."""
    from ecad.jobs import fetch as fetching

    known = [*fetching.SOURCES, "mjhq"]
    if unknown := [name for name in names if name not in known]:
        raise EcadError(f"{unknown[0]!r} is unknown: expected some of {', '.join(sorted(known))}")
    files: list[dict[str, object]] = []
    for name in names:
        for source in fetching.SOURCES.get(name, []):
            if not as_json:
                console.print(f"{source.target}: {source.licence}; from github.com/{source.address}", soft_wrap=True)
            new = fetching.fetch(source, output_dir)
            files.append({"file": str(output_dir / source.target), "new": new, "licence": source.licence})
        if name == "mjhq":
            if not as_json:
                console.print(f"MJHQ-30K: see huggingface.co/datasets/{fetching.MJHQ} for its terms", soft_wrap=True)
            for line in fetching.fetch_mjhq(output_dir, prompts_only, None if as_json else _bar()):
                files.append({"file": line.split(": ")[0], "licence": f"see huggingface.co/datasets/{fetching.MJHQ}"})
                if not as_json:
                    console.print(line, soft_wrap=True)
    finish({"files": files}, f"{len(files)} in place", as_json)


def _bar() -> type:
    from huggingface_hub.utils import tqdm

    class Shown(tqdm):
        """A bar although the commands silence the bars of libraries: this one is ours."""

        def __init__(self, *args: object, **settings: object) -> None:
            super().__init__(*args, **{**settings, "disable": False})

    return Shown
