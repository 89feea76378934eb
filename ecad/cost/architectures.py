"""Architectures: the configuration of a denoiser and the sizes of its inputs, on which the cost depends.

Those of the known generators are package data (`architectures/*.json`), so that the cost can be computed without
weights.
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
from ecad.sites.names import Sites, flux_sites, pixart_sites


@dataclass(frozen=True)
class Architecture:
    """The configuration of a denoiser and the sizes of its inputs for one image.

    Args:
        image_generator: name of the image generator.
        transformer: the content of a diffusers transformer's `config.json`, or a loaded transformer's `.config`.
        height, width: default size of an image in pixels.
        text_tokens: length of the text sequence, including padding.
        guidance_pair: whether each step runs the denoiser with and without the prompt, as a batch of two.
        pixels_per_latent: pixels per latent along one side (the VAE's downsampling).
        steps: default number of denoising steps.
        size_from_schedule: whether height and width in a schedule's config are the size of its images.
        published_text_tokens: text tokens in the paper's published counts, if they differ from `text_tokens`.
        weights: hub id of the weights.
        measured: measurements of one image, for models whose inputs are not known: `sites`; MACs per step by site and,
            last, outside the sites (`layers`, `attention`); numbers in the output of each site and, last, of the
            denoiser (`kept_numbers`); shape of the `latents`. They include text tokens and the guidance pair. Where a
            denoiser does not run in every row, `runs` says in which: `rows` in all and, for each of the `denoisers`,
            its number of `sites`, its `first` row and the one after its `last`, and its MACs per row outside the sites
            (`layers`, `attention`). `frames` of a video; an image is all of them, one below the other.

    The architecture of another model of a known transformer class comes from its configuration:

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

    @property
    def frames(self) -> int:
        """The number of frames of a video, which is an image of its frames one below the other; 1 for an image."""
        if self.measured is not None:
            return int(self.measured.get("frames", 1))
        return int(self.transformer.get("video_length") or 1)


@lru_cache
def known_architectures() -> tuple[Architecture, ...]:
    """All architectures in the package, sorted by generator and image size.

    >>> [known.height for known in known_architectures() if known.image_generator == "PixArtSigmaImageGenerator"]
    [256, 1024]
    """
    package = resources.files("ecad")
    found = []
    for file in package.joinpath("cost/architectures").iterdir():
        if not file.name.endswith(".json"):
            continue
        facts = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(facts["transformer"], str):  # the config.json of a built-in model
            config = package.joinpath(facts["transformer"])
            if not config.is_file():  # the built-in models have not been built
                continue
            facts["transformer"] = json.loads(config.read_text(encoding="utf-8"))
        found.append(Architecture(**facts))
    return tuple(sorted(found, key=lambda known: (known.image_generator, known.height * known.width)))


def registered_sites(architecture: Architecture) -> Sites:
    """The sites of a registered generator's denoiser, without building it.

    >>> len(registered_sites(find_architecture("PixArtAlphaImageGenerator")))
    84
    """
    config = architecture.transformer
    if config["_class_name"] == "FluxTransformer2DModel":
        return flux_sites(config["num_layers"], config["num_single_layers"])
    if config["_class_name"] == "LatteTransformer3DModel":
        block = [("transformer_blocks", name) for name in ("attn1", "attn2", "ff")]
        block += [("temporal_transformer_blocks", name) for name in ("attn1", "ff")]
        return tuple((f"{place}.{i}", name) for i in range(config["num_layers"]) for place, name in block)
    return pixart_sites(config["num_layers"])


def find_architecture(image_generator: str, height: int | None = None, width: int | None = None) -> Architecture:
    """The architecture of a generator: the variant for images nearest to height x width, or else its smallest one.

    Args:
        image_generator: name of the generator.
        height, width: size of an image in pixels; None for the generator's default.

    Raises:
        EcadError: the name is unknown.

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
            "for another model, pass an ecad.cost.Architecture made from its config.json"
        )
    area = max(1, (height or variants[0].height) * (width or variants[0].width))
    return min(variants, key=lambda known: abs(math.log(known.height * known.width / area)))
