"""The error for missing weights, shared by all scorers."""

from __future__ import annotations

from pathlib import Path

from ecad.errors import EcadError


def missing_weights(what: str, source: str, error: Exception) -> EcadError:
    """An error that names the model, the places searched and the remedy.

    Args:
        what: description of the expected weights.
        source: hub id, file or folder.
        error: the cause.
    """
    places = "" if Path(source).exists() else " from a folder of that name, the Hugging Face hub or its local cache"
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].split(" (")[0].rstrip(".")
    return EcadError(f"{source}: cannot load {what}{places}: {reason}; give the folder of a local copy instead")
