"""The built-in models as package data: two small text-to-image pipelines (PixArt and FLUX architecture) and a judge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

_FOLDER = Path(__file__).parent
PIPELINE_FOLDER = _FOLDER / "pipeline"
FLUX_FOLDER = _FOLDER / "flux"
JUDGE_FOLDER = _FOLDER / "judge"
# The image generators that need no download. `prompts` are in their vocabulary.
GENERATORS = ("EmojiImageGenerator", "EmojiFluxImageGenerator")


def prompts(kind: Literal["search", "held_out"]) -> list[str]:
    """Prompts of the built-in models: `search` (seen in training) or `held_out` (combinations never seen in training).

    >>> prompts("search")[0] in prompts("held_out")
    False
    """
    found: list[str] = json.loads((_FOLDER / "prompts.json").read_text(encoding="utf-8"))[kind]
    return found
