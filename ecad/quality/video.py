"""Similarity of a video to the uncached one: per frame, and in the change between frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ecad.errors import EcadError
from ecad.images.files import Images
from ecad.quality.fidelity import psnr
from ecad.quality.scorers import Scorer

Frames = npt.NDArray[np.uint8]
Scores = npt.NDArray[np.float64]


class FrameScores(NamedTuple):
    """Summary of the scores of all frames.

    Attributes:
        mean: mean score over the frames.
        worst: score of the worst frame.
        worst_frame: index of the worst frame, from 0.
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
    """Compare a video with a reference frame by frame. The worst frame counts: a mean hides it.

    Args:
        video: uint8 (frames, height, width, 3).
        reference: uint8, the same shape: the uncached video of the same prompt and seed.
        measure: `psnr`, `ssim` or an `Lpips`: two stacks of images -> float64 (frames,).
        lower_is_better: True for LPIPS.

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
    """The error of the change between consecutive frames.

    Args:
        video: uint8 (frames, height, width, 3), at least two frames.
        reference: uint8, the same shape: the uncached video of the same prompt and seed.

    Returns:
        float64 (frames - 1,), mean absolute differences in values of 0 to 255. It is 0 where both videos change alike:
        an error that is the same in all frames is no flicker.

    Raises:
        ValueError: the shapes differ, or there are fewer than two frames.

    >>> still = np.zeros((3, 8, 8, 3), np.uint8)
    >>> flicker(still + np.uint8(9), still).tolist()
    [0.0, 0.0]
    """
    _check(video, reference, least=2)
    # One pair at a time: all differences of a long video need much memory.
    offs = (frame.astype(np.int16) - other for frame, other in zip(video, reference, strict=True))
    before, found = next(offs), []
    for now in offs:
        found.append(float(np.abs(now - before).mean()))
        before = now
    return np.array(found)


def frames_of_strip(strip: Frames, frames: int) -> Frames:
    """The frames of a video that is stored as one image, one frame below the other.

    Args:
        strip: uint8 (frames x height, width, 3).
        frames: number of frames.

    Returns:
        uint8 (frames, height, width, 3), a view.

    Raises:
        EcadError: the height is not a multiple of the number of frames.

    >>> frames_of_strip(np.zeros((24, 4, 3), np.uint8), 3).shape
    (3, 8, 4, 3)
    """
    if len(strip) % frames:
        raise EcadError(f"{len(strip)} pixels are not the height of {frames} frames, one below the other")
    return strip.reshape(frames, -1, *strip.shape[1:])


def by_frame(scorer: Scorer, frames: int) -> Scorer:
    """A scorer that gives each video the mean score of its frames, and has a version of its own.

    Args:
        scorer: scores single images.
        frames: of each video, which is an image of its frames one below the other; with 1, `scorer` stays as it is.
    """
    if frames == 1:
        return scorer

    def split(images: Images) -> list[Frames]:
        return [frame for strip in images for frame in frames_of_strip(np.asarray(strip), frames)]

    def score(images: Images, prompts: Sequence[str], references: Images | None) -> Scores:
        texts = [text for text in prompts for _ in range(frames)]
        each = scorer.score(split(images), texts, None if references is None else split(references))
        means: Scores = np.asarray(each, np.float64).reshape(-1, frames).mean(axis=1)
        return means

    return replace(scorer, score=score, version=f"{scorer.version} frames {frames}".strip())


def _check(video: Frames, reference: Frames, least: int) -> None:
    if video.shape != reference.shape or video.ndim != 4 or len(video) < least:
        raise ValueError(
            f"videos must be uint8 (frames, height, width, channels) of one shape and at least {least} frames: found "
            f"{video.shape} and {reference.shape}"
        )
