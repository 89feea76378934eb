"""The image generators that have a name, and where their weights are. Nothing here needs torch."""

from __future__ import annotations

import os
from typing import NamedTuple

from ecad import builtin
from ecad.builtin import FLUX_FOLDER, PIPELINE_FOLDER, VIDEO_FOLDER
from ecad.errors import EcadError


class Weights(NamedTuple):
    """Where a generator's weights are: hub ids or folders of its pipeline and, if elsewhere, of its transformer."""

    pipeline: str
    transformer: str | None = None


WEIGHTS = {
    "EmojiImageGenerator": Weights(str(PIPELINE_FOLDER)),
    "EmojiFluxImageGenerator": Weights(str(FLUX_FOLDER)),
    "EmojiVideoGenerator": Weights(str(PIPELINE_FOLDER), str(VIDEO_FOLDER)),
    "PixArtAlphaImageGenerator": Weights("PixArt-alpha/PixArt-XL-2-1024-MS", "PixArt-alpha/PixArt-XL-2-256x256"),
    "PixArtSigmaImageGenerator": Weights(
        "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS", "PixArt-alpha/PixArt-Sigma-XL-2-256x256"
    ),
    "FluxImageGenerator": Weights("black-forest-labs/FLUX.1-dev"),
}


def image_generators() -> dict[str, str]:
    """List the registered names and where each looks for its weights.

    >>> list(image_generators())[0]
    'EmojiImageGenerator'
    """
    return {
        name: "the package" if name in builtin.GENERATORS else weights.transformer or weights.pipeline
        for name, weights in WEIGHTS.items()
    }


def check_image_generator(name: str, weights: str | os.PathLike[str] | None = None) -> None:
    """Refuse a name that `get_image_generator` would refuse, before anything is loaded.

    Args:
        name: A registered name, a pipeline's folder or hub id, or a file that describes one.
        weights: Hub id or folder to use instead of the registered one.

    Raises:
        EcadError: The name is unknown, its description is malformed, or `weights` are given beside a pipeline.
    """
    if name in WEIGHTS:
        return
    from ecad.image_generators.description import describe

    if describe(name) is None:
        raise EcadError(
            f"image generator {name!r} is unknown: expected one of {', '.join(WEIGHTS)}, or the folder, hub id "
            "or description (.json) of a pipeline"
        )
    if weights is not None:
        raise EcadError(
            f"weights {os.fspath(weights)!r} cannot be combined with the pipeline {name!r}; name either of them as the "
            "image generator"
        )


def found_everywhere(name: str) -> str:
    """A generator's name as any process finds it, on any machine that shares the folder (see `get_image_generator`)."""
    return os.path.abspath(name) if name not in WEIGHTS and os.path.exists(name) else name
