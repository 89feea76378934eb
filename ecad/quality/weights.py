"""What all scorers share: telling weights apart, and one line for what is not installed or not there."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

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
    return EcadError(
        f"{source}: expected {what} {where}, but: {reason}; give a local copy (--weights, or the option that names it)"
    )


@torch.no_grad()
def fingerprint(module: torch.nn.Module) -> str:
    """Twelve hex digits that differ where the weights differ, as far as 64 values a tensor tell."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        values = tensor.flatten()[:: max(1, tensor.numel() // 64)].float().cpu().numpy()
        digest.update(f"{name} {tuple(tensor.shape)} ".encode() + values.tobytes())
    return digest.hexdigest()[:12]
