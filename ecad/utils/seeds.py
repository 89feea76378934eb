"""The range of seeds that PyTorch accepts."""

from __future__ import annotations

from collections.abc import Iterable

from ecad.errors import EcadError

SMALLEST, LARGEST = -(2**63), 2**64 - 1


def check_seeds(seeds: Iterable[int]) -> None:
    """Raise an error for seeds that PyTorch does not accept.

    Args:
        seeds: seeds of images: the prompt's seed plus the image's.

    Raises:
        EcadError: a seed is out of range.

    >>> check_seeds([-1, 2**64])
    Traceback (most recent call last):
    ecad.errors.EcadError: seed 18446744073709551616 is too large for PyTorch: expected -2**63 to 2**64 - 1
    """
    for seed in seeds:
        if not SMALLEST <= seed <= LARGEST:
            size = "large" if seed > LARGEST else "small"
            raise EcadError(f"seed {seed} is too {size} for PyTorch: expected -2**63 to 2**64 - 1")
