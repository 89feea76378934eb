"""The built-in model: a small text-to-image pipeline and its judge, as package data."""

from __future__ import annotations

import json
from pathlib import Path

_HERE = Path(__file__).parent
PIPELINE_FOLDER = _HERE / "pipeline"
JUDGE_FOLDER = _HERE / "judge"


def prompts(kind: str) -> list[str]:
    """Prompts of the built-in model: `search` (seen in training) or `held_out` (combinations that no one showed it).

    >>> prompts("search")[0] in prompts("held_out")
    False
    """
    found: list[str] = json.loads((_HERE / "prompts.json").read_text(encoding="utf-8"))[kind]
    return found
