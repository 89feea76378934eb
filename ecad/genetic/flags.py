"""The flags that a study began with, kept in its folder so that `--resume` need not be told them again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from ecad.errors import EcadError
from ecad.files import write_atomic

FLAGS = "flags.json"
# These belong to one run, not to the study.
_OF_A_RUN = {"context", "resume", "output_dir", "live", "as_json"}


def remember(context: typer.Context, folder: Path) -> None:
    """Keep a command's flags in the folder of its study; those of the latest run count."""
    flags = {name: value for name, value in context.params.items() if name not in _OF_A_RUN}
    write_atomic(folder / FLAGS, json.dumps(flags, indent=1, default=lambda path: {"path": str(path)}) + "\n")


def recall(context: typer.Context, folder: Path) -> dict[str, Any]:
    """A command's parameters: as given now, and where nothing is given, as the study began; the context's, too.

    Raises:
        EcadError: the folder has no study that could go on.
    """
    try:
        kept = json.loads((folder / FLAGS).read_bytes())
        if not isinstance(kept, dict):
            raise ValueError("not an object")
    except (OSError, ValueError) as error:
        raise EcadError(
            f"{folder}: --resume: expected a study with its {FLAGS}, found none; leave --resume out to begin one"
        ) from error
    for name in context.params:
        source = context.get_parameter_source(name)
        given = source is not None and source.name != "DEFAULT"
        if name in kept and name not in _OF_A_RUN and not given:
            context.params[name] = Path(kept[name]["path"]) if isinstance(kept[name], dict) else kept[name]
    return {**context.params, "resume": False}
