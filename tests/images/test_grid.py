from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFont

from ecad.errors import EcadError
from ecad.images.grid import FONT_SIZE, GAP, LABEL_WIDTH, grid_size, wrap
from ecad.report import picture_grid, save_images

HEADER = grid_size(0, 0, 64)[1]


def test_the_size_is_exact() -> None:
    sheet = picture_grid([[None] * 3] * 2, ["a", "b"], ["x", "y", "z"], cell=40)
    assert sheet.size == grid_size(2, 3, 40) == (LABEL_WIDTH + GAP + 3 * 46, HEADER + 2 * 46)
    assert sheet.mode == "RGB"


def test_each_picture_stands_in_its_cell_each_pixel_enlarged() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 2, 4, 4, 3), dtype=np.uint8)
    sheet = np.asarray(picture_grid(images, ["a", "b"], ["x", "y"], cell=12, resample="nearest"))
    for i in range(2):
        for j in range(2):
            y, x = HEADER + i * (12 + GAP), LABEL_WIDTH + GAP + j * (12 + GAP)
            expected = images[i, j].repeat(3, axis=0).repeat(3, axis=1)
            np.testing.assert_array_equal(sheet[y : y + 12, x : x + 12], expected)


def test_a_wide_picture_keeps_its_proportions() -> None:
    wide = np.full((4, 8, 3), 200, np.uint8)
    sheet = np.asarray(picture_grid([[wide]], [""], [""], cell=16))
    cell = sheet[HEADER : HEADER + 16, LABEL_WIDTH + GAP : LABEL_WIDTH + GAP + 16]
    assert (cell[4:12] == 200).all()
    assert not (cell[:4] == 200).any()
    assert not (cell[12:] == 200).any()


def test_files_and_arrays_give_the_same_sheet(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    paths = [tmp_path / path for path in save_images(tmp_path, "x", images)]
    from_files = picture_grid([paths], ["p"], ["x", "y"])
    assert from_files.tobytes() == picture_grid([list(images)], ["p"], ["x", "y"]).tobytes()


def test_labels_are_drawn_beside_and_above_the_pictures() -> None:
    def ink(prompt: str, column: str) -> tuple[int, int, int]:
        sheet = np.asarray(picture_grid([[None]], [prompt], [column], cell=64).convert("L")) < 128
        return int(sheet[HEADER:, :LABEL_WIDTH].sum()), int(sheet[:HEADER].sum()), int(sheet.sum())

    assert ink("", "") == (0, 0, 0)
    beside, above, everywhere = ink("a 3d crab", "every-2\n1.2 G")
    assert beside > 0
    assert above > 0
    assert beside + above == everywhere


@pytest.mark.parametrize("content", [None, b"", b"no picture"])
def test_a_file_that_is_no_picture_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "lost.png"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(EcadError, match=r"lost\.png: cannot read this image"):
        picture_grid([[file]], ["p"], ["x"])


def test_a_picture_cut_short_is_refused(tmp_path: Path) -> None:
    (path,) = save_images(tmp_path, "x", np.zeros((1, 64, 64, 3), np.uint8))
    content = (tmp_path / path).read_bytes()
    (tmp_path / path).write_bytes(content[: len(content) // 2])
    with pytest.raises(EcadError, match="cannot read this image"):
        picture_grid([[tmp_path / path]], ["p"], ["x"])


def test_rows_must_match_the_labels() -> None:
    with pytest.raises(ValueError, match="one row of images per prompt"):
        picture_grid([[None]], ["a", "b"], ["x"])
    with pytest.raises(ValueError, match="one image per column"):
        picture_grid([[None]], ["a"], ["x", "y"])


@given(st.text(max_size=80), st.integers(20, 200), st.integers(1, 4))
def test_wrapped_lines_fit(text: str, width: int, max_lines: int) -> None:
    font = ImageFont.load_default(FONT_SIZE)
    lines = wrap(text, width, max_lines, font)
    assert len(lines) <= max_lines
    assert all(font.getlength(line) <= width for line in lines)
    if not any(line.endswith("…") for line in lines):
        assert " ".join(lines).split() == text.split()


def test_a_prompt_of_a_megabyte_is_cut() -> None:
    sheet = picture_grid([[None]], ["a" * 2**20], ["b" * 2**20], cell=64)
    assert isinstance(sheet, Image.Image)
    assert sheet.size == grid_size(1, 1, 64)
