from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ecad.errors import EcadError
from ecad.report.comparison import comparison_page, is_comparison, read_comparison, write_comparison

from .conftest import HOSTILE
from .test_page import Parsed


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


def test_the_uncached_images_come_first_and_likeness_is_to_them(images: Path) -> None:
    assert is_comparison(images)
    comparison = read_comparison(images)
    assert [column.name for column in comparison.columns] == ["none", "a", "b"]
    assert not comparison.missing
    document = Parsed(comparison_page(comparison, "images"))
    texts = [text.strip() for _, text in document.texts]
    assert texts.count("28.1 dB, least alike") == 2  # 20 log10(255 / 10)
    assert texts.count("48.1 dB") == 2
    assert len(document.all("img")) == 6
    assert [attrs.get("class") for attrs in document.all("td") if "class" in attrs].count("least") == 2


def test_scores_stand_in_the_table_and_under_the_images(images: Path) -> None:
    texts = [text.strip() for _, text in Parsed(comparison_page(read_comparison(images), "images")).texts]
    assert {"FID, judge", "12.500", "clip", "1.000 [0.500, 1.500]", "clip 0.500", "clip 1.500"} <= set(texts)
    assert texts.count(HOSTILE) == 2


def test_what_is_damaged_is_said_and_the_rest_is_shown(images: Path) -> None:
    (images / "a" / "manifest.jsonl").write_text("{")
    (images / "b" / "0.png").write_bytes(b"")
    (images / "b" / "clip_scores.json").write_text('{"total_score": []}')
    comparison = read_comparison(images)
    assert [column.name for column in comparison.columns] == ["none", "b"]
    assert len(comparison.missing) == 2
    texts = [text.strip() for _, text in Parsed(comparison_page(comparison, "images")).texts]
    assert "1 of the images shown could not be read." in texts
    assert "no picture" in texts


def test_one_folder_alone_and_none_at_all(images: Path, tmp_path: Path) -> None:
    (path,) = write_comparison(read_comparison(images / "a"), images / "a")
    assert path.read_text().count("<img") == 2
    (tmp_path / "empty").mkdir()
    assert not is_comparison(tmp_path / "empty")
    with pytest.raises(EcadError, match="expected folders of images"):
        read_comparison(tmp_path / "empty")
