"""The built-in models: small text-to-image pipelines of PixArt's and of FLUX's kind, and a judge, as package data."""

from __future__ import annotations

import json
from pathlib import Path

_HERE = Path(__file__).parent
PIPELINE_FOLDER = _HERE / "pipeline"
FLUX_FOLDER = _HERE / "flux"
JUDGE_FOLDER = _HERE / "judge"
# Image generators that need no download, and that `prompts` are for.
GENERATORS = ("EmojiImageGenerator", "EmojiFluxImageGenerator")


def prompts(kind: str) -> list[str]:
    """Prompts of the built-in models: `search` (seen in training) or `held_out` (combinations that no one showed it).

    >>> prompts("search")[0] in prompts("held_out")
    False
    """
    found: list[str] = json.loads((_HERE / "prompts.json").read_text(encoding="utf-8"))[kind]
    return found
