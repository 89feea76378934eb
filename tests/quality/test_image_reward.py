"""ImageReward against its definition, written out here in plain functions over the published tensor names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ecad.errors import EcadError
from ecad.quality.image_reward import MEAN, STD, ImageReward

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "dog", "cat", "##s", "on", "grass", ","]
SIDE, PATCH, VISION, TEXT = 64, 16, 128, 192
PROMPTS = ["a red dog", "cats", "a dog, a cat on grass", "zebra " * 60]


def layer_norm(state: Mapping[str, Tensor], name: str, x: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)


def linear(state: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Of one sequence, head after head of 64 channels."""
    heads = [
        torch.softmax(a @ b.T / 8, dim=-1) @ c
        for a, b, c in zip(q.split(64, -1), k.split(64, -1), v.split(64, -1), strict=True)
    ]
    return torch.cat(heads, dim=-1)


def see(state: Mapping[str, Tensor], pixels: Tensor) -> Tensor:
    """The vision transformer (Dosovitskiy et al., arXiv 2010.11929), pre-norm, of one image (3, side, side)."""
    p = "blip.visual_encoder."
    weight = state[f"{p}patch_embed.proj.weight"]
    patches = [
        (weight * pixels[:, y : y + PATCH, x : x + PATCH]).sum(dim=(1, 2, 3)) + state[f"{p}patch_embed.proj.bias"]
        for y in range(0, SIDE, PATCH)
        for x in range(0, SIDE, PATCH)
    ]
    x = torch.stack([state[f"{p}cls_token"][0, 0], *patches]) + state[f"{p}pos_embed"][0]
    for i in range(2):
        b = f"{p}blocks.{i}."
        q, k, v = linear(state, f"{b}attn.qkv", layer_norm(state, f"{b}norm1", x, 1e-6)).chunk(3, dim=-1)
        x = x + linear(state, f"{b}attn.proj", attention(q, k, v))
        hidden = F.gelu(linear(state, f"{b}mlp.fc1", layer_norm(state, f"{b}norm2", x, 1e-6)))
        x = x + linear(state, f"{b}mlp.fc2", hidden)
    return layer_norm(state, f"{p}norm", x, 1e-6)


def read(state: Mapping[str, Tensor], ids: list[int], seen: Tensor) -> Tensor:
    """BERT (post-norm, eps 1e-12) with a cross-attention to the image after each self-attention."""
    p = "blip.text_encoder."
    x = state[f"{p}embeddings.word_embeddings.weight"][ids]
    x = layer_norm(
        state, f"{p}embeddings.LayerNorm", x + state[f"{p}embeddings.position_embeddings.weight"][: len(ids)], 1e-12
    )
    for i in range(2):
        layer = f"{p}encoder.layer.{i}."
        for name, memory in (("attention", None), ("crossattention", seen)):
            a = f"{layer}{name}."
            source = x if memory is None else memory
            q, k, v = (
                linear(state, f"{a}self.query", x),
                linear(state, f"{a}self.key", source),
                linear(state, f"{a}self.value", source),
            )
            x = layer_norm(
                state, f"{a}output.LayerNorm", x + linear(state, f"{a}output.dense", attention(q, k, v)), 1e-12
            )
        hidden = F.gelu(linear(state, f"{layer}intermediate.dense", x))
        x = layer_norm(state, f"{layer}output.LayerNorm", x + linear(state, f"{layer}output.dense", hidden), 1e-12)
    return x[0]


def slow_score(state: Mapping[str, Tensor], image: np.ndarray, ids: list[int]) -> float:
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    small = np.array(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    pixels = (torch.from_numpy(small).permute(2, 0, 1) / 255 - mean) / std
    x = read(state, ids, see(state, pixels))
    for i in (0, 2, 4, 6, 7):
        x = linear(state, f"mlp.layers.{i}", x)
    return (float(x) - MEAN) / STD


def state_dict() -> dict[str, Tensor]:
    """Random tensors under all the names of the published file, the unused ones included, at a small size."""
    shapes: dict[str, tuple[int, ...]] = {
        "blip.visual_encoder.cls_token": (1, 1, VISION),
        "blip.visual_encoder.pos_embed": (1, 1 + (SIDE // PATCH) ** 2, VISION),
        "blip.visual_encoder.patch_embed.proj.weight": (VISION, 3, PATCH, PATCH),
        "blip.visual_encoder.patch_embed.proj.bias": (VISION,),
        "blip.text_encoder.embeddings.word_embeddings.weight": (len(WORDS) + 2, TEXT),
        "blip.text_encoder.embeddings.position_embeddings.weight": (40, TEXT),
    }

    def add_linear(name: str, inputs: int, outputs: int) -> None:
        shapes.update({f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)})

    def add_norm(name: str, width: int) -> None:
        shapes.update({f"{name}.weight": (width,), f"{name}.bias": (width,)})

    add_norm("blip.visual_encoder.norm", VISION)
    add_norm("blip.text_encoder.embeddings.LayerNorm", TEXT)
    for i in range(2):
        block = f"blip.visual_encoder.blocks.{i}."
        add_norm(f"{block}norm1", VISION)
        add_norm(f"{block}norm2", VISION)
        add_linear(f"{block}attn.qkv", VISION, 3 * VISION)
        add_linear(f"{block}attn.proj", VISION, VISION)
        add_linear(f"{block}mlp.fc1", VISION, 4 * VISION)
        add_linear(f"{block}mlp.fc2", 4 * VISION, VISION)
        layer = f"blip.text_encoder.encoder.layer.{i}."
        for name, width in (("attention", TEXT), ("crossattention", VISION)):
            add_linear(f"{layer}{name}.self.query", TEXT, TEXT)
            add_linear(f"{layer}{name}.self.key", width, TEXT)
            add_linear(f"{layer}{name}.self.value", width, TEXT)
            add_linear(f"{layer}{name}.output.dense", TEXT, TEXT)
            add_norm(f"{layer}{name}.output.LayerNorm", TEXT)
        add_linear(f"{layer}intermediate.dense", TEXT, 4 * TEXT)
        add_linear(f"{layer}output.dense", 4 * TEXT, TEXT)
        add_norm(f"{layer}output.LayerNorm", TEXT)
    for i, (inputs, outputs) in zip(
        (0, 2, 4, 6, 7), ((TEXT, 1024), (1024, 128), (128, 64), (64, 16), (16, 1)), strict=True
    ):
        add_linear(f"mlp.layers.{i}", inputs, outputs)
    add_linear("blip.vision_proj", VISION, 256)
    add_linear("blip.text_proj", TEXT, 256)
    random = torch.Generator().manual_seed(0)
    state = {name: 0.15 * torch.randn(shape, generator=random) for name, shape in shapes.items()}
    # So small that the norms' epsilon counts.
    for name in ("cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"):
        state[f"blip.visual_encoder.{name}"] *= 0.001
    return state | {"blip.text_encoder.embeddings.position_ids": torch.arange(40)[None]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    torch.save(state_dict(), folder / "ImageReward.pt")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return folder


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (len(PROMPTS), 96, 96, 3), dtype=np.uint8)


def test_a_score_is_what_the_definition_says(folder: Path, images: np.ndarray) -> None:
    # CLS 2, SEP 3; the last prompt is one unknown word over and over, cut at 35 tokens.
    ids = [[2, 5, 6, 7, 3], [2, 8, 9, 3], [2, 5, 7, 12, 5, 8, 10, 11, 3], [2, *[1] * 33, 3]]
    scores = ImageReward(folder).score(images, PROMPTS)
    expected = [slow_score(state_dict(), image, row) for image, row in zip(images, ids, strict=True)]
    assert np.ptp(expected) > 0.01
    assert scores == pytest.approx(expected, abs=1e-4)


def test_a_score_does_not_depend_on_the_batch(folder: Path, images: np.ndarray) -> None:
    scorer = ImageReward(folder / "ImageReward.pt")
    alone = [float(scorer.score(images[[i]], [PROMPTS[i]])[0]) for i in range(len(PROMPTS))]
    assert scorer.score(images, PROMPTS) == pytest.approx(alone, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "tensor", "told"),
    [
        ("mlp.layers.6.weight", None, "there is no tensor for 6.weight"),
        ("blip.text_encoder.encoder.layer.1.crossattention.self.key.weight", None, "layer.1.crossattention.self.key"),
        (
            "blip.visual_encoder.blocks.1.attn.qkv.bias",
            torch.zeros(7),
            r"layers.1.self_attn.qkv.bias has shape \(7,\), expected \(384,\)",
        ),
    ],
)
def test_another_state_dict_is_refused(tmp_path: Path, name: str, tensor: Tensor | None, told: str) -> None:
    state = state_dict()
    del state[name]
    if tensor is not None:
        state[name] = tensor
    torch.save(state, tmp_path / "ImageReward.pt")
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    with pytest.raises(EcadError, match=told):
        ImageReward(tmp_path)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(EcadError, match=r"missing.*no such file; give the folder or file of ImageReward's weights"):
        ImageReward(tmp_path / "missing")
    (tmp_path / "ImageReward.pt").write_bytes(b"not a file of torch")
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    with pytest.raises(EcadError, match=r"ImageReward\.pt: cannot load ImageReward's state dict: "):
        ImageReward(tmp_path)
    with pytest.raises(EcadError, match=r"THUDM/ImageReward from the Hugging Face hub .*`weights`") as error:
        ImageReward()
    assert "\n" not in str(error.value)
