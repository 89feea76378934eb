"""What the package knows of the published generators."""

from __future__ import annotations

import pytest

from ecad.cost import find_architecture, known_architectures, macs_table
from ecad.cost.architectures import registered_sites
from ecad.errors import EcadError


@pytest.mark.parametrize(
    ("image_generator", "text_tokens", "guidance_pair", "weights"),
    [
        ("PixArtAlphaImageGenerator", 120, True, ("PixArt-XL-2-256x256", "PixArt-XL-2-1024-MS")),
        ("PixArtSigmaImageGenerator", 300, True, ("PixArt-Sigma-XL-2-256x256", "PixArt-Sigma-XL-2-1024-MS")),
        ("FluxImageGenerator", 512, False, ("FLUX.1-dev",)),
    ],
)
def test_published_generators(image_generator, text_tokens, guidance_pair, weights):
    variants = [known for known in known_architectures() if known.image_generator == image_generator]
    assert [known.weights.split("/")[1] for known in variants] == list(weights)
    assert all((known.text_tokens, known.guidance_pair) == (text_tokens, guidance_pair) for known in variants)


@pytest.mark.parametrize(
    ("side", "expected"), [(64, 256), (256, 256), (448, 256), (576, 1024), (1024, 1024), (2048, 1024)]
)
def test_the_variant_made_for_the_nearest_size_is_found(side, expected):
    assert find_architecture("PixArtAlphaImageGenerator", side, side).height == expected


def test_the_default_is_the_smallest_variant():
    assert find_architecture("PixArtSigmaImageGenerator").height == 256


@pytest.mark.parametrize("name", sorted({known.image_generator for known in known_architectures()}))
def test_the_sites_are_those_of_the_denoiser(name):
    architecture = find_architecture(name)
    assert registered_sites(architecture) == macs_table(architecture).sites


def test_an_unknown_generator_is_one_clear_line():
    with pytest.raises(
        EcadError, match=r"'PixArt' is unknown: expected one of .*FluxImageGenerator, PixArtAlpha"
    ) as error:
        find_architecture("PixArt")
    assert "\n" not in str(error.value)
