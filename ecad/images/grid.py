"""A grid of images: one row per prompt, one column per schedule."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ecad.images.files import read_image

Picture = np.ndarray | str | os.PathLike[str] | None

GAP = 6
LABEL_WIDTH = 220
FONT_SIZE = 15
HEADER_LINES = 2
_LINE = FONT_SIZE + 5
_PAPER, _INK, _FAINT, _EMPTY = "#ffffff", "#1d1d1f", "#6b6b70", "#ececee"


def picture_grid(
    images: Sequence[Sequence[Picture]],
    prompts: Sequence[str],
    columns: Sequence[str],
    *,
    cell: int = 128,
    resample: Literal["lanczos", "nearest"] = "lanczos",
) -> Image.Image:
    """Draw a grid of images with labels.

    Args:
        images: rows of cells, each uint8 (height, width, 3), the path of an image, or None for an empty cell.
        prompts: labels of the rows, wrapped and truncated to the height of a row.
        columns: labels of the columns; text after a line break is drawn fainter on a second line.
        cell: side of a cell in pixels; images are scaled to fit.
        resample: interpolation.

    Returns:
        an RGB image of `grid_size(rows, columns, cell)`.

    Raises:
        EcadError: an image cannot be read.
        ValueError: the numbers of images and labels differ.
    """
    if len(images) != len(prompts) or any(len(row) != len(columns) for row in images):
        raise ValueError("expected one row of images per prompt, and one image per column")
    sheet = Image.new("RGB", grid_size(len(prompts), len(columns), cell), _PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(FONT_SIZE)
    top, left = _header_height(), LABEL_WIDTH + GAP
    for j, label in enumerate(columns):
        for k, line in enumerate(label.split("\n")[:HEADER_LINES]):
            position = left + j * (cell + GAP), GAP + k * _LINE
            draw.text(position, _cut(line, cell, font), _FAINT if k else _INK, font)
    for i, (prompt, row) in enumerate(zip(prompts, images, strict=True)):
        y = top + i * (cell + GAP)
        for k, line in enumerate(wrap(prompt, LABEL_WIDTH - 2 * GAP, max(1, cell // _LINE), font)):
            draw.text((GAP, y + k * _LINE), line, _INK, font)
        for j, picture in enumerate(row):
            sheet.paste(_fitted(picture, cell, resample), (left + j * (cell + GAP), y))
    return sheet


def grid_size(rows: int, columns: int, cell: int) -> tuple[int, int]:
    """Width and height in pixels of a grid."""
    return LABEL_WIDTH + GAP + columns * (cell + GAP), _header_height() + rows * (cell + GAP)


def wrap(text: str, width: int, max_lines: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """Break a text at spaces into lines of at most `width` pixels; truncated text ends in an ellipsis."""
    lines: list[str] = []
    for word in text[: width * max_lines].split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > max_lines:
        lines = [*lines[: max_lines - 1], " ".join(lines[max_lines - 1 :])]
    return [_cut(line, width, font) for line in lines]


def _header_height() -> int:
    return 2 * GAP + HEADER_LINES * _LINE


def _cut(line: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    # No character is narrower than a pixel, so a very long prompt is cut first.
    if len(line) <= width and font.getlength(line) <= width:
        return line
    line = line[:width]
    while line and font.getlength(f"{line}…") > width:
        line = line[:-1]
    return f"{line}…"


def _fitted(picture: Picture, cell: int, resample: Literal["lanczos", "nearest"]) -> Image.Image:
    """The image centred in a square of `cell` pixels; its aspect ratio is kept."""
    square = Image.new("RGB", (cell, cell), _EMPTY)
    if picture is None:
        return square
    image = Image.fromarray(picture if isinstance(picture, np.ndarray) else read_image(picture)).convert("RGB")
    scale = cell / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    method = Image.Resampling.NEAREST if resample == "nearest" else Image.Resampling.LANCZOS
    square.paste(image.resize((width, height), method), ((cell - width) // 2, (cell - height) // 2))
    return square
