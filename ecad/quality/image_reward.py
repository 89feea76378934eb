"""ImageReward: a model of human preference for an image and its prompt (Xu et al., arXiv 2304.05977).

BLIP's text encoder attends to the image, and a linear head maps its first token to a score.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ecad.errors import EcadError
from ecad.images.files import Images
from ecad.quality.weights import missing_weights

HUB_ID = "THUDM/ImageReward"
WEIGHTS_FILE = "ImageReward.pt"
VOCABULARY_HUB_ID = "google-bert/bert-base-uncased"
VOCABULARY_FILE = "vocab.txt"
# Mean and standard deviation over the authors' validation set. Scores are typically -2 to 2.
MEAN, STD = 0.16717362830052426, 1.0333394966054072
MAX_TOKENS = 35
HEAD_WIDTH = 64
BATCH = 32

# Name in the published file -> name in transformers; the first rule that matches is used.
_VISION_NAMES = (
    (r"cls_token$", "embeddings.class_embedding"),
    (r"pos_embed$", "embeddings.position_embedding"),
    (r"patch_embed\.proj\.", "embeddings.patch_embedding."),
    (r"blocks\.(\d+)\.norm1\.", r"encoder.layers.\1.layer_norm1."),
    (r"blocks\.(\d+)\.norm2\.", r"encoder.layers.\1.layer_norm2."),
    (r"blocks\.(\d+)\.attn\.proj\.", r"encoder.layers.\1.self_attn.projection."),
    (r"blocks\.(\d+)\.attn\.qkv\.", r"encoder.layers.\1.self_attn.qkv."),
    (r"blocks\.(\d+)\.mlp\.", r"encoder.layers.\1.mlp."),
    (r"norm\.", "post_layernorm."),
)
_VISION, _TEXT, _HEAD = "blip.visual_encoder.", "blip.text_encoder.", "mlp.layers."
_HEAD_PLACES = (0, 2, 4, 6, 7)


class ImageReward:
    """The published scorer on the BLIP modules of transformers.

    Args:
        weights: a folder with `ImageReward.pt` and BERT's `vocab.txt`, or such a `.pt` file; by default the hub's.
        device: device of the model; in half precision on CUDA.

    Raises:
        EcadError: the weights or the vocabulary are not found, or are not those of ImageReward.
    """

    def __init__(self, weights: str | os.PathLike[str] | None = None, device: str = "cpu") -> None:
        from transformers import BertTokenizer, CLIPImageProcessorPil

        file, vocabulary = _locate(weights)
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
            self.vision, self.text, self.head = build(state)
        except EcadError as error:
            raise EcadError(f"{file}: {error}") from error
        except Exception as error:  # torch.load raises whatever its parsers raise
            raise missing_weights("ImageReward's state dict", str(file), error) from error
        dtype = torch.float16 if device.startswith("cuda") else torch.float32
        self.model = nn.ModuleList((self.vision, self.text, self.head))
        self.vision.to(device, dtype)
        self.text.to(device, dtype)
        self.head.to(device, torch.float32)
        self.tokenizer = BertTokenizer(vocab=_read_vocabulary(vocabulary))
        size = self.vision.config.image_size
        self.processor = CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})

    @torch.no_grad()
    def score(self, images: Images, prompts: Sequence[str]) -> np.ndarray:
        """The reward of each image for its own prompt.

        Args:
            images: n images, each uint8 (height, width, 3).
            prompts: n texts, cut after 35 tokens, as published.

        Returns:
            float64 (n,), mean 0 and standard deviation 1 over the authors' validation images.
        """
        parts = [
            self._rewards(images[start : start + BATCH], prompts[start : start + BATCH])
            for start in range(0, len(images), BATCH)
        ]
        return (np.concatenate(parts) - MEAN) / STD

    def _rewards(self, images: Images, prompts: Sequence[str]) -> np.ndarray:
        device, dtype = self.vision.device, self.vision.dtype
        pixels = self.processor([Image.fromarray(image) for image in images], return_tensors="pt")["pixel_values"]
        seen = self.vision(pixel_values=pixels.to(device, dtype)).last_hidden_state
        tokens = self.tokenizer(
            list(prompts), padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        ).to(device)
        read = self.text(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"], encoder_hidden_states=seen
        ).last_hidden_state
        return np.asarray(self.head(read[:, 0].float())[:, 0].double().cpu())


def build(state: Mapping[str, Tensor]) -> tuple[Any, Any, nn.Sequential]:
    """Image encoder, text encoder and head with a published state dict; its tensors determine their sizes.

    Raises:
        EcadError: a tensor is missing, or its shape does not fit the others.
    """
    from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

    vision_state = {_renamed(name): tensor for name, tensor in _part(state, _VISION).items()}
    text_state, head_state = _part(state, _TEXT), _part(state, _HEAD)
    vision_width, _, patch, _ = _find(vision_state, "embeddings.patch_embedding.weight").shape
    patches = _find(vision_state, "embeddings.position_embedding").shape[1] - 1
    vision = BlipVisionConfig(
        hidden_size=vision_width,
        intermediate_size=_find(vision_state, "encoder.layers.0.mlp.fc1.bias").shape[0],
        num_hidden_layers=_depth(vision_state, "encoder.layers."),
        num_attention_heads=vision_width // HEAD_WIDTH,
        image_size=round(patches**0.5) * patch,
        patch_size=patch,
        layer_norm_eps=1e-6,
    )
    vocabulary, text_width = _find(text_state, "embeddings.word_embeddings.weight").shape
    text = BlipTextConfig(
        vocab_size=vocabulary,
        hidden_size=text_width,
        encoder_hidden_size=vision_width,
        intermediate_size=_find(text_state, "encoder.layer.0.intermediate.dense.bias").shape[0],
        num_hidden_layers=_depth(text_state, "encoder.layer."),
        num_attention_heads=text_width // HEAD_WIDTH,
        max_position_embeddings=_find(text_state, "embeddings.position_embeddings.weight").shape[0],
    )
    return (
        _filled(BlipVisionModel, vision, vision_state),
        _filled(BlipTextModel, text, text_state, add_pooling_layer=False),
        _head(head_state),
    )


def _filled(model_class: Any, config: object, state: Mapping[str, Tensor], **options: object) -> Any:
    """A model with the state's tensors; further tensors, such as BLIP's projections, do not affect the score."""
    with torch.device("meta"):
        wanted = model_class(config, **options).state_dict()
    for name, tensor in wanted.items():
        _find(state, name, tuple(tensor.shape))
    model = model_class.from_pretrained(
        None, config=config, state_dict={name: state[name] for name in wanted}, dtype=torch.float32, **options
    )
    return model.eval().requires_grad_(False)


def _head(state: Mapping[str, Tensor]) -> nn.Sequential:
    """The linear layers; the dropouts between them have no effect in evaluation."""
    layers = []
    for place in _HEAD_PLACES:
        weight = _find(state, f"{place}.weight")
        layers.append(nn.Linear(weight.shape[1], weight.shape[0]))
        bias = _find(state, f"{place}.bias", (weight.shape[0],))
        layers[-1].load_state_dict({"weight": weight, "bias": bias})
    return nn.Sequential(*layers).eval().requires_grad_(False)


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    found = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    if not found:
        raise EcadError(f"these are not ImageReward's weights: none of {len(state)} tensors is named {prefix}*")
    return found


def _renamed(name: str) -> str:
    for pattern, ours in _VISION_NAMES:
        renamed, count = re.subn(rf"^{pattern}", ours, name)
        if count:
            return renamed
    return name


def _find(state: Mapping[str, Tensor], name: str, shape: tuple[int, ...] | None = None) -> Tensor:
    if name not in state:
        raise EcadError(f"these are not ImageReward's weights: there is no tensor for {name}")
    if shape is not None and tuple(state[name].shape) != shape:
        raise EcadError(
            f"these are not ImageReward's weights: {name} has shape {tuple(state[name].shape)}, expected {shape}"
        )
    return state[name]


def _depth(state: Mapping[str, Tensor], prefix: str) -> int:
    return 1 + max(int(name.removeprefix(prefix).split(".")[0]) for name in state if name.startswith(prefix))


def _locate(weights: str | os.PathLike[str] | None) -> tuple[Path, Path]:
    """Paths of the state dict and the vocabulary; only what is not in the given place is downloaded."""
    if weights is None:
        return _download(HUB_ID, WEIGHTS_FILE), _download(VOCABULARY_HUB_ID, VOCABULARY_FILE)
    file = Path(weights) / WEIGHTS_FILE if Path(weights).is_dir() else Path(weights)
    if not file.is_file():
        raise EcadError(f"{file}: no such file; give the folder or file of ImageReward's weights")
    beside = file.with_name(VOCABULARY_FILE)
    return file, beside if beside.is_file() else _download(VOCABULARY_HUB_ID, VOCABULARY_FILE)


def _download(repository: str, file: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, file))
    except Exception as error:  # the hub client raises its own errors, those of its transport and OSError
        raise EcadError(
            f"ImageReward: cannot get {file} of {repository} from the Hugging Face hub or its local cache: "
            f"{str(error).strip().splitlines()[0]}; download {WEIGHTS_FILE} of {HUB_ID} and {VOCABULARY_FILE} of "
            f"{VOCABULARY_HUB_ID} into one folder and give it as `weights`"
        ) from error


def _read_vocabulary(file: Path) -> dict[str, int]:
    words = file.read_text(encoding="utf-8").rstrip("\n").split("\n")
    return {word: index for index, word in enumerate(words)}
