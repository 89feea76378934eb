"""The names of scorers. Nothing here needs torch, so that a wrong name is refused at once."""

from __future__ import annotations

from ecad.errors import EcadError

# Scorers of an image for its prompt, and those that compare with the uncached image.
BY_PROMPT, COMPARING = ("image_reward", "clip", "pick", "judge"), ("psnr", "ssim", "lpips")


def scorer_names() -> list[str]:
    """The names that `get_scorer` knows.

    >>> scorer_names()
    ['image_reward', 'clip', 'pick', 'judge', 'psnr', 'ssim', 'lpips']
    """
    return [*BY_PROMPT, *COMPARING]


def quality_names() -> list[str]:
    """Those of them that rise as images get better."""
    return [name for name in scorer_names() if name != "lpips"]


def check_scorer(name: str) -> None:
    """Raise EcadError if there is no scorer of this name."""
    if name not in scorer_names():
        raise EcadError(f"scorer {name!r} is unknown: expected one of {', '.join(scorer_names())}")


def check_quality(quality: str) -> list[str]:
    """The names of the scorers of a quality, such as "psnr" or "image_reward+clip".

    Raises:
        EcadError: one is unknown, or they cannot be combined.
    """
    names = quality.split("+")
    for name in names:
        if name not in quality_names():
            expected = f"one of {', '.join(quality_names())}, or several joined by +"
            raise EcadError(f"quality {name!r} is unknown: expected {expected}")
    if len(names) > 1 and (alone := next((name for name in names if name in COMPARING), None)):
        raise EcadError(f"quality {quality!r}: {alone} compares with the uncached image and cannot be combined")
    return names
