"""Stand-ins for the tiny hub models that diffusers' tests load, made without a network.

Weights are random and vocabularies are bytes: the text does not matter, but every run must read the same.
"""

from __future__ import annotations

import importlib.machinery
import sys
import types
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers

# Width, layers and heads of all text encoders, as diffusers' tests expect them.
_WIDTH, _LAYERS, _HEADS = 32, 2, 4
_VOCABULARY = 1000
_CHAT = (
    "{% for message in messages %}{{ message['role'] }}: {% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}{% if part['type'] in ('image', 'video') %}<|vision_start|>"
    "<|{{ part['type'] }}_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}\n{% endfor %}"
)
_SPECIAL = {"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>", "mask_token": "<mask>"}
_EXTRA = (
    *("<|im_start|>", "<|im_end|>", "<start_of_image>", "<end_of_image>", "<image_soft_token>", "<image>"),
    *("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"),
)
# Ids that the configurations of Qwen's models expect.
_QWEN = {"<|vision_start|>": 151652, "<|vision_end|>": 151653, "<|image_pad|>": 151655, "<|video_pad|>": 151656}


def _vocabulary(**places: int) -> dict[str, int]:
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    return {word: number for number, word in enumerate([*_SPECIAL.values(), *letters, *_EXTRA])} | places


def tokenizer(places: dict[str, int] = _QWEN, **settings: Any) -> Any:
    """A tokenizer of single bytes that ends texts like T5's; `places` are ids of words."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE(_vocabulary(**places), [], unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    made.add_special_tokens(list(_EXTRA))
    end = _vocabulary()["</s>"]
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", end)]
    )
    settings = {"model_max_length": 77, "padding_side": "right", "chat_template": _CHAT, **_SPECIAL, **settings}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **settings)


def install() -> None:
    """Make `from_pretrained` return stand-ins for everything but local folders, for the rest of this process."""
    _pretend_to_have("requests_mock", Mocker=object)
    _replace(transformers.PreTrainedTokenizerBase, lambda cls, name, settings: tokenizer(**_known(settings)))
    _replace(transformers.AutoTokenizer, lambda cls, name, settings: tokenizer(**_known(settings)))
    _replace(transformers.AutoConfig, lambda cls, name, settings: _config(name))
    _replace(transformers.PreTrainedModel, lambda cls, name, settings: _model(cls))
    _replace(transformers.ProcessorMixin, lambda cls, name, settings: _processor(cls, name))
    _replace(transformers.AutoProcessor, lambda cls, name, settings: _processor(transformers.Qwen2VLProcessor, name))
    for base in (transformers.image_processing_utils.ImageProcessingMixin, transformers.FeatureExtractionMixin):
        _replace(base, lambda cls, name, settings: cls(**settings))


def _known(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key in ("model_max_length", "padding_side")}


def _replace(cls: Any, stand_in: Any) -> None:
    original = cls.from_pretrained.__func__

    def from_pretrained(cls: Any, name: Any, *args: Any, **settings: Any) -> Any:
        if Path(str(name)).is_dir():
            return original(cls, name, *args, **settings)
        return stand_in(cls, str(name), settings)

    cls.from_pretrained = classmethod(from_pretrained)


def _pretend_to_have(name: str, **contents: Any) -> None:
    """A module whose names are needed only to import tests."""
    try:
        __import__(name)
    except ImportError:
        module = types.ModuleType(name)
        module.__dict__.update(contents, __spec__=importlib.machinery.ModuleSpec(name, None))
        sys.modules[name] = module


def _t5(cls: Any = transformers.T5Config) -> Any:
    sizes = {"d_model": _WIDTH, "d_ff": 37, "d_kv": 8, "num_heads": _HEADS, "num_layers": _LAYERS}
    return cls(vocab_size=_VOCABULARY, **sizes)


def _config(name: str) -> Any:
    if "t5" in name.lower():
        return _t5()
    raise OSError(f"no stand-in for the configuration of {name}")


def _model(cls: Any) -> Any:
    torch.manual_seed(0)
    if cls.__name__ not in _CONFIGURATIONS:
        raise OSError(f"no stand-in for the weights of {cls.__name__}")
    return cls(_CONFIGURATIONS[cls.__name__]()).eval()


def _text(width: int = _WIDTH, **sizes: Any) -> dict[str, Any]:
    heads = {"num_attention_heads": _HEADS, "num_key_value_heads": 2}
    shape = {"hidden_size": width, "num_hidden_layers": _LAYERS, "intermediate_size": 37, "vocab_size": _VOCABULARY}
    return {**shape, **heads, **sizes}


def _gemma3() -> Any:
    vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    vision |= {"image_size": 28, "patch_size": 14}
    return transformers.Gemma3Config(text_config=_text(head_dim=8), vision_config=vision, mm_tokens_per_image=4)


def _qwen_text(vocabulary: int) -> dict[str, Any]:
    rope = {"rope_type": "default", "mrope_section": [1, 1, 0], "rope_theta": 1e6}
    return _text(16, vocab_size=vocabulary, rope_parameters=rope, head_dim=4)


def _qwen2_vl() -> Any:
    vision = {"depth": 1, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "mlp_ratio": 2}
    return transformers.Qwen2VLConfig(text_config=_qwen_text(max(_QWEN.values()) + 1), vision_config=vision)


def _qwen3_vl() -> Any:
    vision = {"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16, "out_hidden_size": 16}
    vision |= {"deepstack_visual_indexes": [0], "num_position_embeddings": 16}
    # Tests cut its table of words to the length of the tokenizer.
    words = _vocabulary()
    names = {"vision_start": "vision_start", "vision_end": "vision_end", "image": "image_pad", "video": "video_pad"}
    places = {f"{key}_token_id": words[f"<|{name}|>"] for key, name in names.items()}
    return transformers.Qwen3VLConfig(text_config=_qwen_text(len(words)), vision_config=vision, **places)


def _siglip() -> Any:
    sizes = {"hidden_size": _WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 37}
    return transformers.SiglipVisionConfig(**sizes, image_size=30, patch_size=2)


_CONFIGURATIONS: dict[str, Any] = {
    "T5EncoderModel": _t5,
    "UMT5EncoderModel": lambda: _t5(transformers.UMT5Config),
    "BertModel": lambda: transformers.BertConfig(**_text()),
    "Gemma3ForConditionalGeneration": _gemma3,
    "LlamaForCausalLM": lambda: transformers.LlamaConfig(**_text(16)),
    "Qwen2VLForConditionalGeneration": _qwen2_vl,
    "Qwen3VLForConditionalGeneration": _qwen3_vl,
    "SiglipVisionModel": _siglip,
}


def _processor(cls: Any, name: str) -> Any:
    if cls.__name__ == "GlmImageProcessor":
        words = tokenizer(
            extra_special_tokens={"image_token": "<image>", "grid_bos_token": "<s>", "grid_eos_token": "</s>"}
        )
        return cls(image_processor=transformers.GlmImageImageProcessor(), tokenizer=words, chat_template=_CHAT)
    if not cls.__name__.startswith("Qwen"):
        raise OSError(f"no stand-in for {cls.__name__} of {name}")
    images, words = transformers.Qwen2VLImageProcessor(min_pixels=28 * 28, max_pixels=56 * 56), tokenizer()
    if cls.__name__.startswith("Qwen3"):
        images = transformers.Qwen2VLImageProcessor(patch_size=16, min_pixels=32 * 32, max_pixels=64 * 64)
        words = tokenizer({})
    videos = transformers.Qwen2VLVideoProcessor()
    return cls(image_processor=images, tokenizer=words, video_processor=videos, chat_template=_CHAT)
