"""Likeness to the uncached image of the same prompt and seed."""

from __future__ import annotations

import numpy as np

MAX_PSNR = 99.0


def psnr(images: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio of each image, in decibels.

    Its mean over images is the mean logarithm of their errors, so that no single prompt rules it.

    Args:
        images: uint8 (n, height, width, channels).
        references: uint8, the same shape.

    Returns:
        float64 (n,); `MAX_PSNR` where both are equal, so that a mean stays finite.

    Raises:
        ValueError: the shapes differ.

    >>> psnr(np.zeros((1, 8, 8, 3), np.uint8), np.full((1, 8, 8, 3), 255, np.uint8))
    array([0.])
    """
    if images.shape != references.shape:
        raise ValueError(f"images and references must have one shape: found {images.shape} and {references.shape}")
    error = (images.astype(np.float64) - references).reshape(len(images), -1)
    mean_square = (error**2).mean(axis=1)
    with np.errstate(divide="ignore"):
        return np.asarray(np.minimum(MAX_PSNR, 10 * np.log10(255**2 / mean_square)))
