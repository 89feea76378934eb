from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch

from ecad.builtin import PIPELINE_FOLDER, VIDEO_FOLDER, prompts
from ecad.cost.architectures import known_architectures
from ecad.cost.macs import macs_table
from ecad.errors import EcadError
from ecad.image_generators import ImageGenerator, get_image_generator, image_generators
from ecad.image_generators.text_inputs import latte_inputs
from ecad.schedules import heuristics


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


@pytest.fixture(scope="module")
def tiny_video(tmp_path_factory: pytest.TempPathFactory) -> ImageGenerator:
    """The video generator with an untrained transformer of one layer of each kind."""
    from diffusers import LattePipeline, LatteTransformer3DModel

    pipe = get_image_generator("EmojiVideoGenerator", device="cpu").pipe
    torch.manual_seed(0)
    small = {"num_layers": 1, "attention_head_dim": 8, "cross_attention_dim": 16}
    tiny = LatteTransformer3DModel.from_config(dict(pipe.transformer.config) | small)
    folder = tmp_path_factory.mktemp("video")
    LattePipeline(**{**pipe.components, "transformer": tiny}).save_pretrained(folder)
    return get_image_generator("EmojiVideoGenerator", folder, device="cpu")


def test_a_video_is_a_strip_of_frames(tiny_video: ImageGenerator) -> None:
    assert tiny_video.architecture.frames == 8
    assert len(macs_table(tiny_video.architecture).sites) == 5
    embeds = tiny_video.encode(prompts("held_out", "EmojiVideoGenerator")[:2])
    assert tiny_video.generate(embeds, [0, 1], steps=2).shape == (2, 8 * 64, 64, 3)


def test_a_video_under_a_schedule_that_computes_all_is_the_uncached_one(tiny_video: ImageGenerator) -> None:
    embeds = tiny_video.encode(["a crab moving left"])
    sites = macs_table(tiny_video.architecture).sites
    plain, computed, cached = (
        tiny_video.generate(embeds, [0], schedule, steps=4)
        for schedule in (None, heuristics.none(sites, 4), heuristics.every_n(sites, 4, 2))
    )
    assert (plain == computed).all()
    assert (plain != cached).any()


def test_a_video_does_not_depend_on_its_batch(tiny_video: ImageGenerator) -> None:
    texts = ["a crab moving left", "a twitter ear of corn on a purple background moving down"]
    inputs = [latte_inputs(tiny_video.encode(some)) for some in (texts, texts[:1], texts[1:])]
    both = inputs[0]["prompt_embeds"]
    assert both is not None
    assert torch.equal(both, torch.cat([one["prompt_embeds"] for one in inputs[1:]]))
    assert both.shape == (2, 16, 128)


def test_the_video_pipeline_holds_the_image_pipelines_parts() -> None:
    image, video = (get_image_generator(name, device="cpu") for name in ("EmojiImageGenerator", "EmojiVideoGenerator"))
    assert image.text_fingerprint() == video.text_fingerprint()
    assert image.parts()["vae"] == video.parts()["vae"]
    assert sorted(path.name for path in VIDEO_FOLDER.rglob("*.safetensors")) == ["diffusion_pytorch_model.safetensors"]
