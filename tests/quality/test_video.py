from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecad.builtin import JUDGE_FOLDER
from ecad.errors import EcadError
from ecad.quality import get_scorer, psnr
from ecad.quality.video import by_frame, flicker, frames_of_strip, score_frames


def noise(seed: int, frames: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, 12, 8, 3), dtype=np.uint8)


def test_the_worst_frame_stands_beside_the_mean() -> None:
    reference = noise(0)
    video = reference.copy()
    video[3] = noise(1)[3]
    found = score_frames(video, reference)
    assert found.worst_frame == 3
    assert found.worst == psnr(video[3:4], reference[3:4])[0]
    assert found.mean == pytest.approx(psnr(video, reference).mean())


def test_of_a_distance_the_largest_is_the_worst() -> None:
    reference, video = noise(0), noise(0)
    video[2, :6] = 0
    found = score_frames(video, reference, lambda one, other: (one != other).mean(axis=(1, 2, 3)), lower_is_better=True)
    assert found.worst_frame == 2
    assert found.worst > found.mean > 0


@given(seed=st.integers(0, 9), frames=st.integers(2, 6))
def test_flicker_is_the_difference_of_differences(seed: int, frames: int) -> None:
    video, reference = noise(seed, frames).astype(float), noise(seed + 10, frames).astype(float)
    expected = np.abs(np.diff(video, axis=0) - np.diff(reference, axis=0)).mean(axis=(1, 2, 3))
    assert flicker(video.astype(np.uint8), reference.astype(np.uint8)) == pytest.approx(expected)


def test_one_bad_frame_flickers_before_and_after_it() -> None:
    reference = np.full((5, 4, 4, 3), 100, np.uint8)
    video = reference.copy()
    video[2] += 7
    assert flicker(video, reference).tolist() == [0, 7, 7, 0]


@pytest.mark.parametrize(("one", "other"), [(noise(0, 3), noise(0, 4)), (noise(0)[0], noise(0)[0])])
def test_other_shapes_are_refused(one: np.ndarray, other: np.ndarray) -> None:
    for compare in (score_frames, flicker):
        with pytest.raises(ValueError, match="videos must be uint8"):
            compare(one, other)
    with pytest.raises(ValueError, match="at least 2 frames"):
        flicker(noise(0, 1), noise(0, 1))


def test_a_video_scores_the_mean_of_its_frames() -> None:
    strips = np.concatenate([noise(seed, 5)[None] for seed in range(4)]).reshape(4, 60, 8, 3)
    found = by_frame(get_scorer("psnr"), 5).score(strips[:2], ["", ""], strips[2:])
    frames = strips.reshape(4, 5, 12, 8, 3)
    assert found == pytest.approx([psnr(frames[i], frames[i + 2]).mean() for i in (0, 1)])
    assert found[0] != pytest.approx(psnr(strips[:1], strips[2:3])[0], abs=1e-6)


def test_every_frame_is_held_against_its_videos_prompt() -> None:
    judge = get_scorer("judge", JUDGE_FOLDER, "cpu")
    strips = np.random.default_rng(0).integers(0, 256, (2, 128, 64, 3), dtype=np.uint8)
    texts = ["a crab", "an owl"]
    found = by_frame(judge, 2).score(strips, texts, None)
    expected = [judge.score(frames_of_strip(strips[i], 2), [texts[i]] * 2, None).mean() for i in (0, 1)]
    assert found == pytest.approx(expected, rel=1e-5)


def test_images_are_scored_as_they_are() -> None:
    scorer = get_scorer("psnr")
    assert by_frame(scorer, 1) is scorer


def test_a_strip_that_is_no_whole_number_of_frames_is_refused() -> None:
    with pytest.raises(EcadError, match="12 pixels are not the height of 5 frames"):
        frames_of_strip(noise(0)[0], 5)
