"""What the cost of an image generator depends on: its denoiser's configuration and the sizes it works at.

The facts about the known generators are package data (`architectures/*.json`), so pricing needs no weights.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from typing import Any

from ecad.errors import EcadError


@dataclass(frozen=True)
class Architecture:
    """A denoiser's configuration and the sizes of one image.

    Args:
        image_generator: name of the image generator whose denoiser this is.
        transformer: the content of a diffusers transformer's `config.json`, or a loaded transformer's `.config`.
        height, width: pixels of an image unless the caller says otherwise.
        text_tokens: length of the text sequence, padding included.
        guidance_pair: True if each step runs the denoiser with and without the prompt, as a batch of two.
        pixels_per_latent: pixels along the side of one latent (the VAE's downsampling).
        steps: denoising steps of an image by default.
        size_from_schedule: True if height and width in a schedule's config are those of its images.
        published_text_tokens: text tokens in the paper's published counts, where they are not `text_tokens`.
        weights: hub id of the weights.
        measured: what one image was measured to be, where the inputs of its denoiser are not known: `sites`, MACs of a
            step by site and, last, outside (`layers`, `attention`), numbers in each site's output and, last, the
            denoiser's (`kept_numbers`), shape of the `latents`. Text tokens and the guidance pair are in these counts.

    Any other model of a known transformer class is described from its own configuration:

    >>> tiny = {"_class_name": "PixArtTransformer2DModel", "num_layers": 2, "sample_size": 16}
    >>> Architecture("Mine", tiny, height=64, width=64, text_tokens=20, guidance_pair=True, pixels_per_latent=4).steps
    20
    """

    image_generator: str
    transformer: Mapping[str, Any] = field(hash=False, repr=False)
    height: int
    width: int
    text_tokens: int
    guidance_pair: bool
    pixels_per_latent: int = 8
    steps: int = 20
    size_from_schedule: bool = False
    published_text_tokens: int | None = None
    weights: str | None = None
    measured: Mapping[str, Any] | None = field(default=None, hash=False, repr=False)


@lru_cache
def known_architectures() -> tuple[Architecture, ...]:
    """Every architecture kept in the package, each generator's in order of image size.

    >>> [known.height for known in known_architectures() if known.image_generator == "PixArtSigmaImageGenerator"]
    [256, 1024]
    """
    package = resources.files("ecad")
    found = []
    for file in package.joinpath("cost/architectures").iterdir():
        if not file.name.endswith(".json"):
            continue
        facts = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(facts["transformer"], str):  # a model inside the package: its own config.json says it
            config = package.joinpath(facts["transformer"])
            if not config.is_file():  # not built: the others can still be priced
                continue
            facts["transformer"] = json.loads(config.read_text(encoding="utf-8"))
        found.append(Architecture(**facts))
    return tuple(sorted(found, key=lambda known: (known.image_generator, known.height * known.width)))


def find_architecture(image_generator: str, height: int | None = None, width: int | None = None) -> Architecture:
    """The architecture behind a generator's name: its smallest, or the one made for images nearest to height x width.

    Args:
        image_generator: name of the generator.
        height, width: pixels of an image, or None for the generator's default.

    Raises:
        EcadError: an unknown name.

    >>> find_architecture("PixArtAlphaImageGenerator").height
    256
    >>> find_architecture("PixArtAlphaImageGenerator", 1024, 1024).weights
    'PixArt-alpha/PixArt-XL-2-1024-MS'
    """
    variants = [known for known in known_architectures() if known.image_generator == image_generator]
    if not variants:
        names = ", ".join(sorted({known.image_generator for known in known_architectures()}))
        raise EcadError(
            f"image generator {image_generator!r} is unknown: expected one of {names}; "
            "for another model pass an ecad.cost.Architecture made from its config.json"
        )
    area = max(1, (height or variants[0].height) * (width or variants[0].width))
    return min(variants, key=lambda known: abs(math.log(known.height * known.width / area)))
