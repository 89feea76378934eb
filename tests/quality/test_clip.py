"""CLIP scores against transformers' own forward, and what is said when a model is not there."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, CLIPConfig, CLIPImageProcessorPil, CLIPModel

from ecad.builtin import JUDGE_FOLDER
from ecad.errors import EcadError
from ecad.quality.clip import HUB_IDS, Clip

TEXTS = ["a 3d crab on a blue background", "a twitter owl on a red background", "a fox"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIPModel that nobody has trained, with a scale of its own."""
    folder = tmp_path_factory.mktemp("clip")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    tokenizer = AutoTokenizer.from_pretrained(JUDGE_FOLDER)
    config = CLIPConfig(
        text_config={
            **sizes,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 16,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={**sizes, "image_size": 32, "patch_size": 8},
        projection_dim=24,
        logit_scale_init_value=1.5,
    )
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), dtype=np.uint8)


def test_scores_are_those_of_the_model_itself(folder: Path, images: np.ndarray) -> None:
    model = CLIPModel.from_pretrained(folder).eval()
    tokenizer, processor = AutoTokenizer.from_pretrained(folder), CLIPImageProcessorPil.from_pretrained(folder)
    pixels = processor([Image.fromarray(image) for image in images], return_tensors="pt")
    with torch.no_grad():
        logits = model(**tokenizer(TEXTS, padding=True, return_tensors="pt"), **pixels).logits_per_image.diagonal()
    clip = Clip(folder)
    scale = np.exp(1.5)
    assert clip.preference(images, TEXTS) == pytest.approx(logits.numpy(), abs=1e-5)
    assert clip.score(images, TEXTS) == pytest.approx(100 * logits.numpy() / scale, abs=1e-4)


def test_images_may_have_different_sizes(folder: Path, images: np.ndarray) -> None:
    clip = Clip(folder)
    wide = np.zeros((24, 70, 3), np.uint8)
    both = clip.score([images[0], wide], TEXTS[:2])
    assert both == pytest.approx([clip.score([images[0]], TEXTS[:1])[0], clip.score([wide], TEXTS[1:2])[0]], abs=1e-4)


def test_long_texts_are_cut(folder: Path, images: np.ndarray) -> None:
    assert np.isfinite(Clip(folder).score(images[:1], ["a fox " * 100])).all()


def test_a_processor_may_be_elsewhere(folder: Path, images: np.ndarray, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(folder / name, tmp_path / name)
    assert Clip(tmp_path, processor=folder).score(images, TEXTS).tolist() == Clip(folder).score(images, TEXTS).tolist()


@pytest.mark.parametrize("name", ["ViT-B/32", "openai/clip-vit-base-patch32", "no/such-model"])
def test_a_model_that_is_not_there_is_named_on_one_line(name: str) -> None:
    with pytest.raises(EcadError, match=r"Hugging Face hub or its local cache.*a local copy instead") as error:
        Clip(name)
    assert str(error.value).startswith(f"{HUB_IDS.get(name, name)}: cannot load a CLIPModel")
    assert "\n" not in str(error.value)
