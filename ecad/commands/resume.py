"""Stores the flags of `ecad optimize` in the study, so that `--resume` needs none of them again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from ecad.errors import EcadError
from ecad.genetic.study.layout import FLAGS
from ecad.utils.files import parse_json, write_atomic

# These belong to one run of the command, not to the study.
_OF_A_RUN = {"context", "resume", "output_dir", "live", "log", "dry_run", "as_json"}


def remember(context: typer.Context, folder: Path) -> None:
    """Store a command's flags in the folder of its study, in place of those of an earlier run."""
    flags = {name: value for name, value in context.params.items() if name not in _OF_A_RUN}
    write_atomic(folder / FLAGS, json.dumps(flags, indent=1, default=str) + "\n")


def recall(context: typer.Context, folder: Path) -> dict[str, object]:
    """The parameters of a resumed command: those given now, and the study's stored ones for the others.

    Args:
        context: of the command; its parameters are updated, too.
        folder: of the study.

    Raises:
        EcadError: the folder has no study with stored flags.
    """
    try:
        kept = _stored(folder)
    except (OSError, ValueError) as error:
        raise EcadError(
            f"{folder}: --resume needs a study with its {FLAGS}, found none; leave --resume out to begin one"
        ) from error
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        given = source is not None and source.name != "DEFAULT"
        if name in kept and name not in _OF_A_RUN and not given:
            context.params[name] = _cast(context, parameter, kept[name], folder)
    return {**context.params, "resume": False}


def searched_generator(folder: Path) -> str | None:
    """What `--image-generator` of a study's search was; None if its flags are not stored."""
    for place in (folder, folder.parent):  # the flags of several numbers of steps are beside their studies
        try:
            found = _stored(place).get("image_generator")
        except (OSError, ValueError):
            continue
        return found if isinstance(found, str) else None
    return None


def _stored(folder: Path) -> dict[str, object]:
    """Raises OSError or ValueError if there are no stored flags."""
    kept = parse_json((folder / FLAGS).read_bytes())
    if not isinstance(kept, dict):
        raise ValueError("not an object")
    return kept


def _cast(context: typer.Context, parameter: Any, value: Any, folder: Path) -> Any:
    """A stored value, converted as if it had been given on the command line."""
    try:
        if isinstance(value, list | dict) or (value is None and parameter.default is not None):
            raise ValueError("no such value can be given")
        return parameter.process_value(context, value)
    except Exception as error:  # typer does not export the class of its usage errors
        reason = f"{value!r}: {error}"[:100]
        raise EcadError(
            f"{folder / FLAGS}: {parameter.name}: not a value of the flag: {reason}; give the flags again, without "
            "--resume"
        ) from error
