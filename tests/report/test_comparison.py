from __future__ import annotations

from pathlib import Path

import pytest
from example_results import HOSTILE
from parsed_page import Parsed

from ecad.errors import EcadError
from ecad.report.comparison import comparison_page, is_comparison, read_comparison, write_comparison


def test_the_uncached_images_come_first_and_similarity_is_to_them(images: Path) -> None:
    assert is_comparison(images)
    comparison = read_comparison(images)
    assert [column.name for column in comparison.columns] == ["none", "a", "b"]
    assert not comparison.missing
    document = Parsed(comparison_page(comparison, "images"))
    texts = [text.strip() for _, text in document.texts]
    assert texts.count("28.1 dB, least similar") == 2  # 20 log10(255 / 10)
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
    assert "no image" in texts


def test_one_folder_alone_and_none_at_all(images: Path, tmp_path: Path) -> None:
    (path,) = write_comparison(read_comparison(images / "a"), images / "a")
    assert path.read_text().count("<img") == 2
    (tmp_path / "empty").mkdir()
    assert not is_comparison(tmp_path / "empty")
    with pytest.raises(EcadError, match="no folders of images"):
        read_comparison(tmp_path / "empty")
