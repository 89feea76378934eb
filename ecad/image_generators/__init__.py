"""Image generators: diffusers pipelines with fixed settings that turn text embeddings and seeds into images."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ecad.image_generators.known import check_image_generator, found_everywhere, image_generators

if TYPE_CHECKING:
    from ecad.image_generators.generator import ImageGenerator
    from ecad.image_generators.registry import get_architecture, get_image_generator
    from ecad.prompts.embeds import PromptEmbeds

__all__ = [
    "ImageGenerator",
    "PromptEmbeds",
    "check_image_generator",
    "found_everywhere",
    "get_architecture",
    "get_image_generator",
    "image_generators",
]

# Imported on first use: names are known, and wrong ones refused, without torch.
_HOMES = {
    "ImageGenerator": "ecad.image_generators.generator",
    "PromptEmbeds": "ecad.prompts.embeds",
    "get_architecture": "ecad.image_generators.registry",
    "get_image_generator": "ecad.image_generators.registry",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
