"""Folders of generated images as `ecad generate` leaves them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from example_results import HOSTILE
from PIL import Image


def make(root: Path, name: str, noise: int, plan: str) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    rows = [{"file": f"{i}.png", "prompt_id": str(i), "prompt": HOSTILE, "image_seed": i} for i in range(2)]
    lines = [{"settings": {"plan": plan}}, *rows]
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for i in range(2):
        Image.fromarray(np.full((8, 8, 3), 100 + i + noise, np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two schedules' images and the uncached ones, which stand last in the order of names."""
    root = tmp_path / "images"
    worse, better = make(root, "a", 10, "1234"), make(root, "b", 1, "5678")
    make(root, "none", 0, "uncached")
    fid = {"fid_score": 12.5, "kid_score": None, "model_name": "judge", "num_generated": 2, "num_reference": 9}
    (worse / "fid_scores.json").write_text(json.dumps(fid))
    scores = {"0.png": {"score": 0.5}, "1.png": {"score": 1.5}}
    clip = {"total_score": 1.0, "avg_by_prompt": {"0": 0.5, "1": 1.5}, "scorer": "clip", "images": scores}
    (better / "clip_scores.json").write_text(json.dumps(clip))
    return root
