from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ecad.errors import EcadError
from ecad.quality import psnr
from ecad.quality.fidelity import MAX_PSNR, Lpips, ssim

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


def slow_ssim(one: np.ndarray, other: np.ndarray) -> float:
    """The definition, around each pixel of the image mirrored at its edges; mean over pixels and channels."""
    side, sigma = 11, 1.5
    line = np.exp(-((np.arange(side) - 5) ** 2) / (2 * sigma**2))
    window = np.outer(line, line) / line.sum() ** 2
    c1, c2 = 0.01**2, 0.03**2
    found = []
    for channel in range(3):
        a, b = (np.pad(image[..., channel] / 255, 5, mode="reflect") for image in (one, other))
        for y in range(len(a) - side + 1):
            for x in range(a.shape[1] - side + 1):
                p, q = a[y : y + side, x : x + side], b[y : y + side, x : x + side]
                mean_p, mean_q = (window * p).sum(), (window * q).sum()
                var_p, var_q = (window * p * p).sum() - mean_p**2, (window * q * q).sum() - mean_q**2
                both = (window * p * q).sum() - mean_p * mean_q
                found.append(
                    (2 * mean_p * mean_q + c1) * (2 * both + c2) / ((mean_p**2 + mean_q**2 + c1) * (var_p + var_q + c2))
                )
    return float(np.mean(found))


def test_ssim_is_what_the_definition_says() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 24, 20, 3), dtype=np.uint8)
    references = images.copy()
    references[0] = np.clip(images[0].astype(int) + rng.integers(-80, 80, images[0].shape), 0, 255)
    found = ssim(images, references)
    assert found[1] == pytest.approx(1)
    assert found[0] == pytest.approx(slow_ssim(images[0], references[0]), abs=1e-5)
    assert found[0] < 0.95


@pytest.fixture
def alexnet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder where torch looks for weights, with an untrained AlexNet under the published one's name."""
    from torchvision.models import AlexNet_Weights, alexnet

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    place = tmp_path / "hub" / "checkpoints" / Path(AlexNet_Weights.DEFAULT.url).name
    place.parent.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(alexnet().state_dict(), place)
    return place


def test_lpips_is_nothing_for_equal_images_and_grows_with_noise(alexnet: Path) -> None:
    lpips = Lpips()
    rng = np.random.default_rng(0)
    images = rng.integers(60, 196, (3, 64, 64, 3), dtype=np.uint8)
    others = np.stack([images[i] + rng.integers(-n, n + 1, images[i].shape) for i, n in enumerate((0, 10, 60))])
    found = lpips(images, others.astype(np.uint8))
    assert found[0] == 0
    assert 0 < found[1] < found[2]


def test_lpips_says_where_its_weights_belong(alexnet: Path) -> None:
    alexnet.write_bytes(b"torn")
    with pytest.raises(
        EcadError, match=r"LPIPS: cannot load AlexNet's weights from .*alexnet.*pth.*TORCH_HOME"
    ) as error:
        Lpips()
    assert "\n" not in str(error.value)
