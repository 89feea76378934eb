"""The files that `ecad fetch` downloads, by name, for messages that say how to get one."""

from __future__ import annotations

import os
from pathlib import Path

# Name of a file or folder -> the argument of `ecad fetch`.
NAMES = {
    "COCO_caption_prompts_30k.txt": "coco",
    "PartiPrompts.tsv": "parti",
    "DrawBench200.txt": "drawbench",
    "ImageRewardPrompts.json": "image-reward",
    "ImageRewardPrompts.txt": "image-reward",
    "MJHQ-30K-prompts.json": "mjhq",
    "mjhq": "mjhq",
    "schedules_in_paper": "published-schedules",
}


def how_to_fetch(path: str | os.PathLike[str]) -> str:
    """The end of a message about a file that is not there; empty if `ecad fetch` does not download it.

    >>> how_to_fetch("prompts/COCO_caption_prompts_30k.txt")
    '; `ecad fetch coco` downloads it'
    >>> how_to_fetch("schedules/schedules_in_paper/flux_256/ours_fast.json")
    '; `ecad fetch published-schedules` downloads it'
    >>> how_to_fetch("my-prompts.txt")
    ''
    """
    found = next((NAMES[part] for part in reversed(Path(path).parts) if part in NAMES), None)
    return f"; `ecad fetch {found}` downloads it" if found else ""
