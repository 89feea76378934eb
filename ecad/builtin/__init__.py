"""The built-in models as package data: two small image pipelines (PixArt, FLUX), a video transformer and a judge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

_FOLDER = Path(__file__).parent
PIPELINE_FOLDER = _FOLDER / "pipeline"
FLUX_FOLDER = _FOLDER / "flux"
# The video pipeline has the parts of `PIPELINE_FOLDER`, and its own transformer from here.
VIDEO_FOLDER = _FOLDER / "video"
JUDGE_FOLDER = _FOLDER / "judge"
# The generators that need no download. `prompts` are in their vocabulary.
GENERATORS = ("EmojiImageGenerator", "EmojiFluxImageGenerator", "EmojiVideoGenerator")


def prompts(kind: Literal["search", "held_out"], generator: str = "EmojiImageGenerator") -> list[str]:
    """Prompts of a built-in model.

    Args:
        kind: `search` (seen in training) or `held_out` (pictures that were never seen in training).
        generator: One of `GENERATORS`. The prompts of the video model name a movement.

    >>> prompts("search")[0] in prompts("held_out")
    False
    >>> prompts("search", "EmojiVideoGenerator")[0]
    'a twitter koala on a blue background moving down'
    """
    key = f"video_{kind}" if generator == "EmojiVideoGenerator" else kind
    found: list[str] = json.loads((_FOLDER / "prompts.json").read_text(encoding="utf-8"))[key]
    return found
