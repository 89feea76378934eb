from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from ecad.errors import EcadError
from ecad.report import Results
from ecad.report.front_plot import front_plot, save_front_plot


def test_the_png_is_one(tmp_path: Path, results: Results) -> None:
    save_front_plot(results, tmp_path / "front.png", dpi=50)
    with Image.open(tmp_path / "front.png") as image:
        image.load()
        assert (image.format, image.size) == ("PNG", (560, 210))
        assert len(set(image.convert("RGB").get_flattened_data())) > 10


def test_the_svg_is_one_and_the_same_each_time(tmp_path: Path, results: Results) -> None:
    for name in ("a.svg", "b.svg"):
        save_front_plot(results, tmp_path / name)
    assert ElementTree.parse(tmp_path / "a.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_points_stand_where_the_numbers_say(results: Results) -> None:
    search, held_out = front_plot(results).axes
    np.testing.assert_array_equal(search.collections[0].get_offsets(), [[1.0, 25.0], [3.0, 27.5]])
    marked = {container.get_label(): container.lines[0].get_xydata().tolist() for container in held_out.containers}
    assert marked == {
        "uncached": [[4.0, 27.25]],
        "hand-made": [[2.0, 26.0]],
        "found by the search": [[1.25, 26.5]],
    }
    ends = {c.get_label(): c.lines[2][0].get_segments()[0][:, 1].tolist() for c in held_out.containers}
    assert ends == {"uncached": [26.0, 28.5], "hand-made": [25.0, 27.0], "found by the search": [25.25, 27.75]}
    assert {text.get_text() for text in held_out.texts} == {entry.name for entry in results.entries[1:]}


@pytest.mark.parametrize("left_out", ["entries", "candidates", "both"])
def test_what_is_missing_is_left_out(tmp_path: Path, results: Results, left_out: str) -> None:
    gone = ("entries", "candidates") if left_out == "both" else (left_out,)
    save_front_plot(replace(results, **dict.fromkeys(gone, ())), tmp_path / "front.png", dpi=20)
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")


def test_another_kind_of_file_is_refused(tmp_path: Path, results: Results) -> None:
    with pytest.raises(EcadError, match=r"front\.gif: cannot write \.gif files; use \.png or \.svg"):
        save_front_plot(results, tmp_path / "front.gif")
    assert not list(tmp_path.glob("front*"))
