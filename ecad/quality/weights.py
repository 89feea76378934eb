"""What all scorers share: one line for weights that are not there."""

from __future__ import annotations

from pathlib import Path

from ecad.errors import EcadError


def missing_weights(what: str, source: str, error: Exception) -> EcadError:
    """The error that says which model, where it was looked for and how to point to a copy of one's own.

    Args:
        what: what should be there.
        source: hub id, file or folder.
        error: why it is not usable.
    """
    where = "there" if Path(source).exists() else "in a folder of that name, the Hugging Face hub and its local cache"
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].split(" (")[0].rstrip(".")
    return EcadError(f"{source}: expected {what} {where}, but: {reason}; give the folder of a local copy instead")
