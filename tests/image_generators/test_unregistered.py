from __future__ import annotations

import json
import warnings
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from described_pipelines import pictures, save_control, save_wan
from diffusers import PixArtTransformer2DModel
from PIL import Image

from ecad.builtin import FLUX_FOLDER, PIPELINE_FOLDER
from ecad.cost.macs import macs_table
from ecad.cost.memory import kept_bytes
from ecad.cost.table import CostTable
from ecad.errors import EcadError, EcadWarning, ScheduleError
from ecad.genetic import Study
from ecad.genetic.evaluation.image_evaluator import evaluator_of
from ecad.genetic.evaluation.problems import problem_of
from ecad.genetic.search import search
from ecad.image_generators import ImageGenerator, found_everywhere, get_architecture, get_image_generator
from ecad.image_generators import unregistered as any_pipeline
from ecad.image_generators.generator import pictures_of
from ecad.image_generators.latency_table import latency_table
from ecad.image_generators.provenance import provenance_for
from ecad.prompts import Prompt
from ecad.runtime.cache import cached, enable_cache
from ecad.runtime.compatibility import layout_of
from ecad.schedules import CacheSchedule, heuristics
from ecad.schedules.joint import by_denoiser
from ecad.schedules.provenance import made_for
from ecad.sites.discovery import discover

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
        any_pipeline._try_out("x", pipe, {"transformer": pipe.transformer}, {"passes": passes}, steps=2, macs={})
        for passes in (1, 2)
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
        ({"steps": 0}, "mine.json: not a description of a pipeline: steps: Input should be greater than 0"),
        (
            {"stesp": 3},
            "mine.json: not a description of a pipeline: stesp: no such field; the fields are pipeline, ",
        ),
        ({"pipeline": " "}, "mine.json: not a description of a pipeline: pipeline: String should match"),
        ({"height": "64"}, "height: Input should be a valid integer"),
        (
            {"pipeline": "no-such-folder/at-all/x"},
            "no-such-folder/at-all/x: cannot load a diffusers pipeline",
        ),
        ({"pipeline": "x" * 5000}, "cannot load a diffusers pipeline"),
        ({"call": {"strength": float("nan")}}, "cannot read this description of a pipeline: Out of range float"),
        ({"call": {"negative_prompt": "\ud800"}}, "cannot read this description of a pipeline: 'utf-8' codec"),
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


def flux(model: Path, folder: Path, name: str, **facts: Any) -> ImageGenerator:
    facts = {"pipeline": str(model), "steps": 5, "guidance_scale": 3.0, "height": 64, "width": 64, **facts}
    facts["call"] = {"max_sequence_length": 12, **facts.get("call", {})}
    (folder / f"{name}.json").write_text(json.dumps(facts))
    return get_image_generator(str(folder / f"{name}.json"), device="cpu")


def ran(generator: ImageGenerator, schedule: CacheSchedule) -> int:
    """Calls of components that compute while one image is made."""
    with cached(generator.pipe, schedule) as run, torch.no_grad():
        inputs = generator.pipeline_inputs(generator.encode(PROMPTS[:1]))
        generator.pipe(**inputs, **generator.call, **generator.images, num_inference_steps=generator.steps)
        return run.stats.computed


@pytest.mark.parametrize("images", [{"image": "fox.png"}, {"image": "fox.png", "mask_image": "mask.png"}])
def test_image_to_image_and_inpainting_begin_in_the_middle(
    short_flux: Path, tmp_path: Path, images: dict[str, str]
) -> None:
    pictures(tmp_path)
    kind = "FluxInpaintPipeline" if "mask_image" in images else "FluxImg2ImgPipeline"
    generator = flux(short_flux, tmp_path, "mine", **{"class": kind}, images=images, call={"strength": 0.6})
    table = macs_table(generator.architecture)
    whole, seldom = heuristics.none(table.sites, 5), heuristics.every_n(table.sites, 5, 5)
    # Of five rows the last three run, and the first of them computes whatever its bits say.
    text = flux(short_flux, tmp_path, "text")
    assert table.price(whole.recompute) == 3 * macs_table(text.architecture).price(whole.recompute) // 5
    for schedule in (whole, seldom):
        expected = table._runs(schedule.recompute).sum()
        assert ran(generator, schedule) == expected
    # One prompt and seed gives one image, whatever else is in the batch.
    both = generator.generate(generator.encode(PROMPTS), [5, 6], seldom)
    np.testing.assert_array_equal(both[1:], generator.generate(generator.encode(PROMPTS[1:]), [6], seldom))
    with pytest.raises(ScheduleError, match="known for one number of rows only"):
        table.price(np.ones((6, len(table.sites)), dtype=bool))


def test_what_images_are_made_from_is_part_of_what_they_are(short_flux: Path, tmp_path: Path) -> None:
    pictures(tmp_path)
    facts = {"class": "FluxImg2ImgPipeline", "images": {"image": "fox.png"}}
    before = flux(short_flux, tmp_path, "mine", **facts).call_settings()
    assert json.loads(json.dumps(before)) == before
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "fox.png")
    assert flux(short_flux, tmp_path, "mine", **facts).call_settings() != before
    (tmp_path / "fox.png").unlink()
    with pytest.raises(EcadError, match=r"fox\.png: cannot read this image"):
        flux(short_flux, tmp_path, "mine", **facts)


def test_a_control_pipeline_is_called_with_its_image(short_flux: Path, tmp_path: Path) -> None:
    pictures(tmp_path)
    save_control(tmp_path, short_flux)
    generator = flux(short_flux, tmp_path, "mine", pipeline="control", images={"control_image": "fox.png"})
    schedule = heuristics.every_n(macs_table(generator.architecture).sites, 5, 2)
    assert generator.generate(generator.encode(PROMPTS), [5, 6], schedule).shape == (2, 64, 64, 3)
    assert ran(generator, schedule) == macs_table(generator.architecture)._runs(schedule.recompute).sum()


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> ImageGenerator:
    """Wan 2.2: two denoisers, the second takes over at low noise; videos."""
    folder = tmp_path_factory.mktemp("wan")
    save_wan(folder)
    return get_image_generator(str(folder / "wan22.json"), device="cpu")


def test_two_denoisers_have_one_schedule_whose_blocks_name_them(wan: ImageGenerator) -> None:
    table = macs_table(wan.architecture)
    assert table.sites[0][0] == "transformer.blocks.0"
    assert table.sites[-1][0] == "transformer_2.blocks.1"
    rng = np.random.default_rng(0)
    for bits in (np.ones((6, 12), bool), np.zeros((6, 12), bool), rng.random((6, 12)) < 0.5):
        schedule = CacheSchedule(bits, table.sites)
        split = by_denoiser(schedule, ["transformer", "transformer_2"])
        assert list(split) == ["transformer", "transformer_2"]
        np.testing.assert_array_equal(np.hstack([one.recompute for one in split.values()]), bits)
        # Guidance is a second forward of each row.
        assert ran(wan, schedule) == 2 * table._runs(bits).sum()
    assert (table.active.sum(axis=1) == 6).all()  # type: ignore[union-attr]
    with pytest.raises(ScheduleError, match="does not name a block's"):
        enable_cache(wan.pipe, heuristics.none((("blocks.0", "attn1"),), 6))


def test_a_search_finds_a_schedule_for_each_denoiser_at_once(wan: ImageGenerator, tmp_path: Path) -> None:
    prompts = [Prompt("0", "a fox")]
    study = search(problem_of(wan), evaluator_of(wan, prompts, [0]), tmp_path, generations=2, population_size=4)
    assert study.uncached_cost == macs_table(wan.architecture).price(np.ones((6, 12), dtype=bool))
    best = study.front()[0]
    assert best.cost < study.uncached_cost
    assert Study.open(tmp_path).front()[0].cost == best.cost
    assert wan.generate(wan.encode(["a fox"]), [0], best.schedule).shape == (1, 160, 32, 3)
    assert provenance_for(wan).denoiser == "WanTransformer3DModel + WanTransformer3DModel"


def test_costs_are_known_for_other_numbers_of_rows(wan: ImageGenerator, short_flux: Path, tmp_path: Path) -> None:
    pictures(tmp_path)
    image_to_image = {"class": "FluxImg2ImgPipeline", "images": {"image": "fox.png"}, "call": {"strength": 0.6}}
    for generator, rows, passes in ((wan, 12, 2), (flux(short_flux, tmp_path, "mine", **image_to_image), 10, 1)):
        table = macs_table(generator.architecture_for(rows))
        other = replace(generator, steps=rows)
        for seed in range(3):
            bits = np.random.default_rng(seed).random((rows, len(table.sites))) < 0.5
            assert ran(other, CacheSchedule(bits, table.sites)) == passes * table._runs(bits).sum()
    assert wan.architecture_for(6) is wan.architecture
    with pytest.raises(ScheduleError, match=r"known for one number of rows.*architecture_for\(12\)"):
        macs_table(wan.architecture).price(np.ones((12, 12), dtype=bool))


def test_the_time_of_two_denoisers_is_measured_row_by_row(wan: ImageGenerator) -> None:
    table = latency_table(wan, wan.encode(PROMPTS[:1]), rounds=1)
    counted = macs_table(wan.architecture)
    assert table.sites == counted.sites
    np.testing.assert_array_equal(table.active, counted.active)
    bits = np.ones((6, 12), dtype=bool)
    assert table.price(bits) == table.per_site @ table.active.sum(axis=0) + table.fixed_by_row.sum()  # type: ignore[union-attr]
    known = CostTable.from_json(json.loads(json.dumps(table.to_json())))
    assert known.price(bits, True) == table.price(bits, True)


def test_a_joint_schedule_says_what_each_denoiser_was_searched_for(wan: ImageGenerator) -> None:
    sites = macs_table(wan.architecture).sites
    origin = provenance_for(wan)
    schedule = CacheSchedule(np.ones((6, 12), bool), sites, attributes={"provenance": origin.to_json()})
    for name, one in by_denoiser(schedule, ["transformer", "transformer_2"]).items():
        module = getattr(wan.pipe, name)
        found = made_for(one.attributes)[0]
        assert found is not None
        assert (found.denoiser, found.layout) == ("WanTransformer3DModel", layout_of(module, discover(module)))
        assert found.weights == origin.weights
    resampled = by_denoiser(schedule.resample(steps=9), ["transformer", "transformer_2"])
    assert {made_for(one.attributes)[1] for one in resampled.values()} == {6}
    with warnings.catch_warnings():
        warnings.simplefilter("error", EcadWarning)
        wan.generate(wan.encode(PROMPTS[:1]), [0], schedule)
        with pytest.raises(EcadWarning, match="another number of steps"):
            wan.generate(wan.encode(PROMPTS[:1]), [0], schedule.resample(steps=9))


def test_a_pipeline_class_that_diffusers_has_not_is_refused(short_flux: Path, tmp_path: Path) -> None:
    with pytest.raises(EcadError, match="diffusers has no pipeline class 'NoPipeline'"):
        flux(short_flux, tmp_path, "mine", **{"class": "NoPipeline"})
    pictures(tmp_path)
    with pytest.raises(EcadError, match="cannot be called with the argument 'image'"):
        flux(short_flux, tmp_path, "mine", images={"image": "fox.png"})
