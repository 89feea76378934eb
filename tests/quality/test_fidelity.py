from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ecad.quality import psnr
from ecad.quality.fidelity import MAX_PSNR

IMAGES = arrays(np.uint8, (3, 4, 5, 3))


def slow_psnr(image: np.ndarray, reference: np.ndarray) -> float:
    pairs = zip(image.ravel().tolist(), reference.ravel().tolist(), strict=True)
    error = sum((a - b) ** 2 for a, b in pairs) / image.size
    return MAX_PSNR if error == 0 else 20 * math.log10(255) - 10 * math.log10(error)


@given(IMAGES, IMAGES)
def test_equals_the_definition_image_by_image(images: np.ndarray, references: np.ndarray) -> None:
    expected = [slow_psnr(a, b) for a, b in zip(images, references, strict=True)]
    assert psnr(images, references) == pytest.approx(expected)


@given(IMAGES, st.integers(1, 255))
def test_equal_images_score_highest(images: np.ndarray, change: int) -> None:
    other = images.copy()
    other[0, 0, 0, 0] = (int(other[0, 0, 0, 0]) + change) % 256
    score = psnr(other, images)
    assert score[0] < MAX_PSNR
    assert score[1:].tolist() == [MAX_PSNR] * 2


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="one shape"):
        psnr(np.zeros((1, 2, 2, 3), np.uint8), np.zeros((2, 2, 2, 3), np.uint8))
