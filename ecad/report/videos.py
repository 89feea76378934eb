"""How videos under each schedule differ from the uncached ones, frame by frame."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ecad.errors import EcadError
from ecad.images.files import read_image
from ecad.report.results import Entry, Results


class VideoRow(NamedTuple):
    """Scores of one schedule's videos, as text.

    Attributes:
        name: Of the schedule.
        numbers: One text for each of `video_header`.
    """

    name: str
    numbers: tuple[str, ...]


def video_header(rows: list[VideoRow]) -> list[str]:
    """The columns of `video_rows`, without the schedule's name."""
    shown = ["PSNR", "PSNR, worst frame", "flicker", "SSIM", "SSIM, worst frame"]
    return shown[: max((len(row.numbers) for row in rows), default=0)]


def video_rows(results: Results, folder: Path) -> list[VideoRow]:
    """Compare each entry's videos with the uncached ones.

    Means are over frames and videos. The worst frame is the worst of all videos. SSIM is left out where torchmetrics is
    not installed.

    Args:
        results: Of which the images are compared.
        folder: Of the images.

    Returns:
        One row per entry with videos, in the order of the page; empty without videos or without uncached ones.
    """
    uncached = results.uncached
    if uncached is None or not uncached.images or all(picture.frames == 1 for picture in results.pictures):
        return []
    reference = _videos(results, uncached, folder)
    rows = []
    for entry in results.ordered():
        if entry is uncached or not entry.images:
            continue
        videos = _videos(results, entry, folder)
        pairs = [(videos[i], reference[i]) for i in videos.keys() & reference.keys()]
        pairs = [(video, other) for video, other in pairs if video.shape == other.shape]
        if pairs:
            rows.append(VideoRow(entry.name, _numbers(pairs)))
    return rows


def _videos(results: Results, entry: Entry, folder: Path) -> dict[int, np.ndarray]:
    """Place of the picture -> frames; without images and without what cannot be read, which the page says elsewhere."""
    from ecad.quality.video import frames_of_strip

    found = {}
    for i, (path, picture) in enumerate(zip(entry.images, results.pictures, strict=True)):
        if picture.frames > 1:
            try:
                found[i] = frames_of_strip(np.array(read_image(folder / path)), picture.frames)
            except EcadError:
                continue
    return found


def _numbers(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[str, ...]:
    from ecad.quality.fidelity import psnr, ssim
    from ecad.quality.video import flicker, score_frames

    def scores(measure: Callable[[np.ndarray, np.ndarray], np.ndarray], unit: str, digits: int) -> tuple[str, str]:
        each = [score_frames(video, other, measure) for video, other in pairs]
        worst = min(each, key=lambda one: one.worst)
        mean = float(np.mean([one.mean for one in each]))
        return f"{mean:.{digits}f}{unit}", f"{worst.worst:.{digits}f}{unit} (frame {worst.worst_frame + 1})"

    unsteady = float(np.mean([flicker(video, other).mean() for video, other in pairs]))
    numbers = (*scores(psnr, " dB", 1), f"{unsteady:.2f}")
    try:
        return (*numbers, *scores(ssim, "", 3))
    except EcadError:
        return numbers
