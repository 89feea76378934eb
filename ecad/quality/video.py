"""How close a video is to the uncached one: frame by frame, and from each frame to the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ecad.quality.fidelity import psnr

Frames = npt.NDArray[np.uint8]
Scores = npt.NDArray[np.float64]


class FrameScores(NamedTuple):
    """A score of every frame, in brief.

    Attributes:
        mean: over the frames.
        worst: of the worst frame.
        worst_frame: its place, from 0.
    """

    mean: float
    worst: float
    worst_frame: int


def score_frames(
    video: Frames,
    reference: Frames,
    measure: Callable[[Frames, Frames], Scores] = psnr,
    lower_is_better: bool = False,
) -> FrameScores:
    """Compare a video with a reference frame by frame: a mean over frames hides the one that everybody sees.

    Args:
        video: uint8 (frames, height, width, 3).
        reference: uint8, the same shape: the uncached video of the same prompt and seed.
        measure: `psnr`, `ssim`, or what `load_lpips` gives: float64 (frames,) of two stacks of images.
        lower_is_better: for LPIPS.

    Raises:
        ValueError: the shapes differ, or there is no frame.

    >>> still = np.zeros((3, 8, 8, 3), np.uint8)
    >>> spoilt = still.copy()
    >>> spoilt[1] = 255
    >>> score_frames(spoilt, still)
    FrameScores(mean=66.0, worst=0.0, worst_frame=1)
    """
    _check(video, reference, least=1)
    scores = measure(video, reference)
    worst = int(scores.argmax() if lower_is_better else scores.argmin())
    return FrameScores(float(scores.mean()), float(scores[worst]), worst)


def flicker(video: Frames, reference: Frames) -> Scores:
    """How far the change from each frame to the next is off the reference's change.

    Args:
        video, reference: as for `score_frames`, of at least two frames.

    Returns:
        float64 (frames - 1,), mean absolute differences in values of 0 to 255; 0 where both change alike, so an error
        that stays the same in all frames is no flicker.

    Raises:
        ValueError: the shapes differ, or there are fewer than two frames.

    >>> still = np.zeros((3, 8, 8, 3), np.uint8)
    >>> flicker(still + np.uint8(9), still).tolist()
    [0.0, 0.0]
    """
    _check(video, reference, least=2)
    # A pair at a time: long videos are many numbers.
    offs = (frame.astype(np.int16) - other for frame, other in zip(video, reference, strict=True))
    before, found = next(offs), []
    for now in offs:
        found.append(float(np.abs(now - before).mean()))
        before = now
    return np.array(found)


def _check(video: Frames, reference: Frames, least: int) -> None:
    if video.shape != reference.shape or video.ndim != 4 or len(video) < least:
        raise ValueError(
            f"videos must be uint8 (frames, height, width, channels) of one shape and at least {least} frames: found "
            f"{video.shape} and {reference.shape}"
        )
