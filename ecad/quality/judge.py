"""The built-in judge: a small CLIPModel that knows the pictures of the built-in model."""

from __future__ import annotations

import os

from ecad.builtin import JUDGE_FOLDER
from ecad.quality.clip import Clip


class Judge(Clip):
    """CLIP likeness of images to their prompts, by default as the built-in judge sees it."""

    def __init__(self, folder: str | os.PathLike[str] = JUDGE_FOLDER, device: str = "cpu") -> None:
        super().__init__(folder, device)
