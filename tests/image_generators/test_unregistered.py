from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import PixArtTransformer2DModel

from ecad.builtin import FLUX_FOLDER, PIPELINE_FOLDER
from ecad.cost.macs import macs_table
from ecad.cost.memory import kept_bytes
from ecad.errors import EcadError
from ecad.image_generators import ImageGenerator, found_everywhere, get_architecture, get_image_generator
from ecad.image_generators import unregistered as any_pipeline
from ecad.image_generators.generator import pictures_of
from ecad.image_generators.provenance import provenance_for
from ecad.runtime.cache import cached
from ecad.schedules import heuristics

PROMPTS = ["a 3d crab on a blue background", "a google apple on a red background"]
FACTS = {"pipeline": str(PIPELINE_FOLDER), "steps": 3, "guidance_scale": 2.0, "height": 64, "width": 64}
CALL = {"use_resolution_binning": False}


def described(folder: Path, **facts: Any) -> str:
    file = folder / "mine.json"
    file.write_text(json.dumps({**FACTS, "call": CALL, **facts}))
    return str(file)


@pytest.fixture(scope="module")
def registered() -> ImageGenerator:
    return replace(get_image_generator("EmojiImageGenerator", device="cpu"), steps=3)


@pytest.fixture(scope="module")
def unregistered(tmp_path_factory: pytest.TempPathFactory) -> ImageGenerator:
    return get_image_generator(described(tmp_path_factory.mktemp("any")), device="cpu")


def test_it_makes_the_images_that_the_pipeline_makes_when_called(unregistered: ImageGenerator) -> None:
    schedule = heuristics.every_n(macs_table(unregistered.architecture).sites, 3, 2)
    for chosen in (None, schedule):
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in (5, 6)]
        with nullcontext() if chosen is None else cached(unregistered.pipe, chosen), torch.no_grad():
            expected = unregistered.pipe(
                PROMPTS,
                num_inference_steps=3,
                guidance_scale=2.0,
                height=64,
                width=64,
                generator=generators,
                output_type="np",
                **CALL,
            ).images
        found = unregistered.generate(unregistered.encode(PROMPTS), [5, 6], chosen)
        np.testing.assert_array_equal(found, np.round(255 * expected).astype(np.uint8))


def test_it_measures_what_is_known_of_the_registered_generator(
    registered: ImageGenerator, unregistered: ImageGenerator
) -> None:
    # The pipeline pads its text to 120 tokens; the registered generator counts those of a usual prompt.
    known = replace(registered.architecture, text_tokens=120)
    ours, theirs = macs_table(unregistered.architecture), macs_table(known)
    assert ours.sites == theirs.sites
    assert ours.fixed_per_step == theirs.fixed_per_step
    np.testing.assert_array_equal(ours.per_site, theirs.per_site)
    schedule = heuristics.every_n(ours.sites, 3, 2)
    assert kept_bytes(schedule, unregistered.architecture) == kept_bytes(schedule, known)
    here, there = provenance_for(unregistered), provenance_for(registered)
    assert replace(here, model="") == replace(there, model="")
    assert here.model == "mine"


def test_it_measures_what_is_known_of_two_kinds_of_blocks(tmp_path: Path) -> None:
    file = described(tmp_path, pipeline=str(FLUX_FOLDER), guidance_scale=3.0, call={"max_sequence_length": 12})
    ours, theirs = (get_image_generator(name, device="cpu") for name in (file, "EmojiFluxImageGenerator"))
    found, known = macs_table(ours.architecture), macs_table(theirs.architecture)
    assert (found.sites, found.fixed_per_step) == (known.sites, known.fixed_per_step)
    np.testing.assert_array_equal(found.per_site, known.per_site)
    schedule = heuristics.every_n(found.sites, 3, 2)
    assert kept_bytes(schedule, ours.architecture) == kept_bytes(schedule, theirs.architecture)


def test_a_model_that_needs_values_is_measured_with_its_weights(
    unregistered: ImageGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(module: Any) -> Any:
        raise RuntimeError("no values on the meta device")

    monkeypatch.setattr(any_pipeline, "on_meta", refuse)
    again = any_pipeline.load_any("again", any_pipeline.Description(**FACTS, call=CALL), "cpu", None)
    assert again.architecture.measured == unregistered.architecture.measured


class TwoPasses:
    """A pipeline that runs its denoiser for the prompt and then again for guidance."""

    def __init__(self) -> None:
        self.transformer = PixArtTransformer2DModel(
            2, 4, num_layers=1, cross_attention_dim=8, norm_num_groups=1, sample_size=8, caption_channels=6
        )

    def __call__(self, prompt: list[str], num_inference_steps: int, output_type: str, passes: int = 2) -> Any:
        for _ in range(passes * num_inference_steps):
            self.transformer(torch.zeros(1, 4, 8, 8), torch.zeros(1, 3, 6), torch.zeros(1), added_cond_kwargs={})
        return type("Output", (), {"images": np.zeros((1, 16, 16, 3))})


def test_guidance_in_a_pass_of_its_own_counts() -> None:
    pipe = TwoPasses()
    (_, once), (size, twice) = (
        any_pipeline._try_out("x", pipe, pipe.transformer, {"passes": passes}) for passes in (1, 2)
    )
    assert size == (16, 16)
    for what in ("layers", "attention", "kept_numbers"):
        assert twice[what] == [2 * value for value in once[what]]
        assert sum(twice[what]) > 0


def test_a_video_is_a_strip() -> None:
    frames = np.arange(2 * 3 * 4 * 5 * 3).reshape(2, 3, 4, 5, 3)
    strips = pictures_of(type("Output", (), {"frames": frames}))
    assert strips.shape == (2, 12, 5, 3)
    np.testing.assert_array_equal(strips[1, 4:8], frames[1, 1])


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"steps": 0}, "mine.json is not a description of a pipeline: steps: Input should be greater than 0"),
        ({"stesp": 3}, "mine.json is not a description of a pipeline: stesp: Extra inputs are not permitted"),
        ({"height": "64"}, "height: Input should be a valid integer"),
        (
            {"pipeline": "no-such-folder/at-all/x"},
            "no-such-folder/at-all/x: cannot load a diffusers pipeline",
        ),
        ({"call": {"num_frames": 3}}, "PixArtAlphaPipeline cannot be called with the argument 'num_frames'"),
        ({"height": 30}, "mine: PixArtAlphaPipeline failed to make an image: ValueError: `height`"),
    ],
)
def test_what_cannot_be_used_is_one_line(tmp_path: Path, facts: dict[str, Any], told: str) -> None:
    with pytest.raises(EcadError, match=told) as caught:
        get_image_generator(described(tmp_path, **facts), device="cpu")
    assert "\n" not in str(caught.value)


def test_a_description_that_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    for file in ("bad.json", "missing.json"):
        with pytest.raises(EcadError, match=f"{file}: cannot read this description of a pipeline"):
            get_image_generator(str(tmp_path / file))


def test_another_size_or_other_weights_are_refused(tmp_path: Path, unregistered: ImageGenerator) -> None:
    with pytest.raises(EcadError, match="mine was measured at 64x64, and 32x64 was requested"):
        unregistered.generate(unregistered.encode(PROMPTS[:1]), [0], height=32)
    with pytest.raises(EcadError, match="weights 'other' cannot be combined with the pipeline"):
        get_image_generator(described(tmp_path), "other")


def test_a_folder_is_found_beside_its_description_and_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights").symlink_to(PIPELINE_FOLDER)
    file = described(tmp_path, pipeline="weights")
    monkeypatch.chdir(tmp_path)
    assert get_architecture("mine.json").steps == 3
    monkeypatch.chdir(tmp_path.parent)
    assert get_architecture(file).steps == 3
    assert found_everywhere(f"{tmp_path.name}/mine.json") == file
    (tmp_path.parent / "EmojiImageGenerator").mkdir()
    assert found_everywhere("EmojiImageGenerator") == "EmojiImageGenerator"
    assert found_everywhere("org/model") == "org/model"
