"""What a description may say beside the pipeline: how it is quantised, its adapters, MACs that cannot be counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ecad.builtin import FLUX_FOLDER
from ecad.cost import count_macs
from ecad.errors import EcadError
from ecad.image_generators import ImageGenerator, get_image_generator
from ecad.image_generators import unregistered as any_pipeline
from ecad.image_generators.provenance import provenance_for
from ecad.schedules import CacheSchedule, heuristics
from ecad.sites.names import DENOISER_SITES

FACTS = {"pipeline": str(FLUX_FOLDER), "steps": 3, "guidance_scale": 3.0, "height": 64, "width": 64}
FACTS["call"] = {"max_sequence_length": 12}
EIGHT_BITS = {"_type": "Int8WeightOnlyConfig", "_version": 2, "_data": {}}
INT8 = {"quant_method": "torchao", "quant_type": {"default": EIGHT_BITS}}


def loaded(folder: Path, **facts: Any) -> ImageGenerator:
    file = folder / "mine.json"
    file.write_text(json.dumps({**FACTS, **facts}))
    return get_image_generator(str(file), device="cpu")


def image_of(generator: ImageGenerator, schedule: CacheSchedule | None = None) -> np.ndarray:
    return generator.generate(generator.encode(["a fox"]), [1], schedule)


def test_a_quantised_pipeline(tmp_path: Path) -> None:
    pytest.importorskip("torchao")
    plain = loaded(tmp_path)
    quantised = loaded(tmp_path, quantization_config={"transformer": INT8})
    assert type(quantised.pipe.transformer.transformer_blocks[0].attn.to_q.weight).__name__ == "Int8Tensor"
    assert not np.array_equal(image_of(quantised), image_of(plain))
    sites = CacheSchedule.for_model(quantised.pipe, 3).sites
    schedule = heuristics.every_n(sites, 3, 2)
    assert count_macs(schedule, quantised.architecture) == count_macs(schedule, plain.architecture)
    there, here = provenance_for(plain), provenance_for(quantised)
    assert there.layout == here.layout
    assert there.configuration != here.configuration
    assert there.weights != here.weights
    assert not np.array_equal(image_of(quantised, schedule), image_of(quantised))


def test_a_pipeline_with_adapters(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    plain = loaded(tmp_path)
    torch.manual_seed(0)
    transformer = plain.pipe.transformer
    transformer.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    plain.pipe.save_lora_weights(tmp_path / "lora", peft.get_peft_model_state_dict(transformer))
    plain = loaded(tmp_path)
    made = [loaded(tmp_path, adapters=[{"weights": "lora", "scale": scale}]) for scale in (1.0, 0.5)]
    images = [image_of(generator) for generator in (plain, *made)]
    assert not any(np.array_equal(images[0], other) for other in images[1:])
    assert not np.array_equal(images[1], images[2])
    origins = [provenance_for(generator) for generator in (plain, *made)]
    assert len({origin.configuration for origin in origins}) == len({origin.weights for origin in origins}) == 3
    assert len({origin.layout for origin in origins}) == 1


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"adapters": [{"weights": "no-lora"}]}, "no-lora: cannot load this adapter: "),
        ({"adapters": [{"scale": 1.0}]}, "not a description of a pipeline: adapters.0.weights: Field required"),
        ({"quantization_config": {"transformer": {"quant_method": "none"}}}, "cannot load a diffusers pipeline from"),
        ({"macs": {"transformer": 0}}, "macs.transformer: Input should be greater than 0"),
        ({"macs": {"unet": 5}}, "`macs` names 'unet', and the denoisers are transformer"),
    ],
)
def test_what_cannot_be_used_is_one_line(tmp_path: Path, facts: dict[str, Any], told: str) -> None:
    with pytest.raises(EcadError, match=told) as caught:
        loaded(tmp_path, **facts)
    assert "\n" not in str(caught.value)


def test_macs_that_cannot_be_counted_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise EcadError("engine.matmul.default cannot be counted: expected one of mm")

    monkeypatch.setattr(any_pipeline, "measure", refuse)
    asked = (
        r"mine\.json: mine: the MACs of FluxTransformer2DModel cannot be counted: engine.matmul.default cannot .*; say "
        r'how many a forward takes in a .json file: "macs": \{"transformer": ...\}'
    )
    with pytest.raises(EcadError, match=asked):
        loaded(tmp_path)
    told = loaded(tmp_path, macs={"transformer": 1000})
    assert told.architecture.measured is not None
    assert told.architecture.measured["kept_numbers"] == [16 * 16 * 4] * 2
    schedule = heuristics.every_n(DENOISER_SITES, 3, 2)
    assert count_macs(schedule, told.architecture) == 2000
    assert image_of(told, schedule).shape == (1, 64, 64, 3)


@pytest.mark.parametrize("index", ["null", '{"_class_name": 5}', '{"_class_name": "CON"}', '{"unet": ["x"]}'])
def test_a_folder_whose_index_is_odd_is_one_line(tmp_path: Path, index: str) -> None:
    (tmp_path / "model_index.json").write_text(index)
    with pytest.raises(EcadError, match="cannot load a diffusers pipeline from here: ") as caught:
        get_image_generator(str(tmp_path), device="cpu")
    assert "\n" not in str(caught.value)
