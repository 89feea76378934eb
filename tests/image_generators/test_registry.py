from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from ecad.builtin import PIPELINE_FOLDER, prompts
from ecad.cost.architectures import known_architectures
from ecad.cost.macs import macs_table
from ecad.errors import EcadError
from ecad.image_generators import get_image_generator, image_generators


def test_every_generator_has_an_architecture() -> None:
    assert set(image_generators()) == {known.image_generator for known in known_architectures()}


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(EcadError, match="'Nope' is unknown: expected one of EmojiImageGenerator"):
        get_image_generator("Nope")


@pytest.mark.parametrize("weights", [None, "no/such-model", "no-such-folder"])
def test_missing_weights_are_one_line(weights: str | None) -> None:
    with pytest.raises(EcadError, match="pass the folder of a downloaded pipeline as `weights`") as caught:
        get_image_generator("FluxImageGenerator", weights)
    assert "\n" not in str(caught.value)


def test_a_local_folder_is_loaded_as_it_is(tmp_path: Path) -> None:
    from diffusers import PixArtAlphaPipeline

    copy = tmp_path / "mine"
    PixArtAlphaPipeline.from_pretrained(PIPELINE_FOLDER).save_pretrained(copy)
    generator = get_image_generator("EmojiImageGenerator", copy, device="cpu")
    assert Path(generator.pipe.config._name_or_path) == copy


def test_search_and_held_out_prompts_do_not_meet() -> None:
    assert len(set(prompts("search"))) == len(set(prompts("held_out"))) == 48
    assert not set(prompts("search")) & set(prompts("held_out"))


def test_other_weights_bring_their_own_architecture(tmp_path: Path) -> None:
    from diffusers import PixArtAlphaPipeline, PixArtTransformer2DModel

    pipe = PixArtAlphaPipeline.from_pretrained(PIPELINE_FOLDER)
    config = dict(pipe.transformer.config) | {"num_layers": 2, "sample_size": 8}
    pipe.transformer = PixArtTransformer2DModel.from_config(config)
    pipe.save_pretrained(tmp_path)
    architecture = get_image_generator("EmojiImageGenerator", tmp_path, device="cpu").architecture
    assert (architecture.height, architecture.width) == (32, 32)
    assert len(macs_table(architecture).sites) == 6


@pytest.mark.parametrize(
    ("transformer", "told"),
    [
        (
            '["diffusers", "FluxTransformer2DModel"]',
            "has FluxTransformer2DModel; use the image generator FluxImageGen",
        ),
        (
            '["diffusers", "SD3Transformer2DModel"]',
            "has SD3Transformer2DModel; use their folder as the image generator",
        ),
        ("null", "needs weights with a PixArtTransformer2DModel, and .* has none"),
    ],
)
@pytest.mark.parametrize("only", [None, "text"])
def test_weights_of_another_family_are_refused_before_they_are_loaded(
    tmp_path: Path, transformer: str, told: str, only: Literal["text"] | None
) -> None:
    (tmp_path / "model_index.json").write_text(f'{{"_class_name": "XPipeline", "transformer": {transformer}}}')
    with pytest.raises(EcadError, match=told):
        get_image_generator("PixArtAlphaImageGenerator", tmp_path, only=only)
