"""Image quality: scorers with one interface."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ecad.quality.names import scorer_names

if TYPE_CHECKING:
    from ecad.quality.clip import Judge
    from ecad.quality.fidelity import psnr
    from ecad.quality.interval import mean_interval
    from ecad.quality.scorers import Scorer, get_scorer

__all__ = ["Judge", "Scorer", "get_scorer", "mean_interval", "psnr", "scorer_names"]

# Imported on first use: names are known, and wrong ones refused, without torch.
_HOMES = {
    "Judge": "ecad.quality.clip",
    "Scorer": "ecad.quality.scorers",
    "get_scorer": "ecad.quality.scorers",
    "mean_interval": "ecad.quality.interval",
    "psnr": "ecad.quality.fidelity",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
