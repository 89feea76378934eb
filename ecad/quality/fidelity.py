"""Similarity to the uncached image of the same prompt and seed: PSNR, SSIM, LPIPS."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ecad.errors import EcadError
from ecad.utils.extras import benchmark_extra

MAX_PSNR = 99.0


def psnr(images: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio of each image, in decibels.

    The mean over images is a mean of logarithms, so that no single prompt dominates it.

    Args:
        images: uint8 (n, height, width, channels).
        references: uint8, the same shape.

    Returns:
        float64 (n,); `MAX_PSNR` for equal images, so that a mean stays finite.

    Raises:
        ValueError: the shapes differ.

    >>> psnr(np.zeros((1, 8, 8, 3), np.uint8), np.full((1, 8, 8, 3), 255, np.uint8))
    array([0.])
    """
    _check_shapes(images, references)
    error = (images.astype(np.float64) - references).reshape(len(images), -1)
    mean_square = (error**2).mean(axis=1)
    with np.errstate(divide="ignore"):
        return np.asarray(np.minimum(MAX_PSNR, 10 * np.log10(255**2 / mean_square)))


def ssim(images: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Structural similarity of each image, 1 where both are equal (Wang et al., 2004; Gaussian window of 11 pixels).

    Args:
        images: uint8 (n, height, width, 3).
        references: uint8, the same shape.

    Returns:
        float64 (n,), -1 to 1.

    Raises:
        EcadError: torchmetrics is not installed.
        ValueError: the shapes differ.

    >>> ssim(np.zeros((1, 16, 16, 3), np.uint8), np.zeros((1, 16, 16, 3), np.uint8))
    array([1.])
    """
    _check_shapes(images, references)
    with benchmark_extra("SSIM"):
        from torchmetrics.functional.image import structural_similarity_index_measure
    score = structural_similarity_index_measure(
        _channels_first(images), _channels_first(references), data_range=1.0, reduction="none"
    )
    return np.asarray(torch.as_tensor(score).double().reshape(len(images)))


class Lpips:
    """The learned perceptual distance (LPIPS; Zhang et al., arXiv 1801.03924), on AlexNet. Lower is more similar.

    Args:
        device: device of the network.

    Raises:
        EcadError: torchmetrics is not installed, or AlexNet's weights are not found.
    """

    def __init__(self, device: str = "cpu") -> None:
        with benchmark_extra("LPIPS"):
            from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
            from torchvision.models import AlexNet_Weights
        try:
            self.network = LearnedPerceptualImagePatchSimilarity(net_type="alex").to(device).net
        except Exception as error:  # torch.load raises whatever its parsers raise
            url = AlexNet_Weights.DEFAULT.url
            place = Path(torch.hub.get_dir(), "checkpoints", Path(url).name)
            raise EcadError(
                f"LPIPS: cannot load AlexNet's weights from {place} or {url}: {str(error).splitlines()[0]}; "
                "download them to that place, or set TORCH_HOME to the folder of a copy"
            ) from error
        self._device = device

    @torch.no_grad()
    def __call__(self, images: np.ndarray, references: np.ndarray) -> np.ndarray:
        """Distances of images from references, both uint8 (n, height, width, 3): float64 (n,), 0 where equal."""
        _check_shapes(images, references)
        pairs = _channels_first(images).to(self._device), _channels_first(references).to(self._device)
        return np.asarray(self.network(*pairs, normalize=True).double().cpu().reshape(len(images)))


def _channels_first(images: np.ndarray) -> torch.Tensor:
    """float32 (n, 3, height, width), 0 to 1."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def _check_shapes(images: np.ndarray, references: np.ndarray) -> None:
    if images.shape != references.shape:
        raise ValueError(f"images and references must have one shape: found {images.shape} and {references.shape}")
