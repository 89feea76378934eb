"""The registered image generators, and how to load them from the hub, a folder or the package."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ecad.cost.architectures import Architecture, find_architecture
from ecad.errors import EcadError, first_line
from ecad.image_generators.description import describe
from ecad.image_generators.generator import ImageGenerator
from ecad.image_generators.known import WEIGHTS, check_image_generator
from ecad.image_generators.text_inputs import (
    LATTE_TOKENS,
    encode_flux,
    encode_latte,
    encode_pixart,
    flux_inputs,
    latte_inputs,
    pixart_inputs,
)
from ecad.image_generators.unregistered import load_any
from ecad.prompts.embeds import PromptEmbeds
from ecad.utils.device import choose_device
from ecad.utils.protocols import Pipeline


@dataclass(frozen=True)
class _TextKind:
    """How a family of pipelines takes text.

    Args:
        encode: (pipe, prompts, max_tokens) -> PromptEmbeds.
        inputs: PromptEmbeds -> keyword arguments of the pipeline.
        parts: components of the pipeline that only encode text.
        width: key of the transformer's configuration with the width of text embeddings.
    """

    encode: Callable[[Pipeline, Sequence[str], int | None], PromptEmbeds]
    inputs: Callable[[PromptEmbeds], dict[str, Tensor | None]]
    parts: tuple[str, ...]
    width: str


_PIXART = _TextKind(encode_pixart, pixart_inputs, ("text_encoder", "tokenizer"), "caption_channels")
_FLUX = _TextKind(
    encode_flux, flux_inputs, ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"), "joint_attention_dim"
)
_LATTE = _TextKind(encode_latte, latte_inputs, ("text_encoder", "tokenizer"), "caption_channels")
_IMAGE_PARTS = ("transformer", "vae")


@dataclass(frozen=True)
class _Row:
    """A registered generator, whose weights are in `known.WEIGHTS`.

    Args:
        pipeline_class: class name in diffusers.
        guidance_scale: default strength of the prompt.
        cuda_dtype: default precision on an accelerator.
        text: how the pipeline takes text.
        call: further keyword arguments of every call.
        max_tokens: prompts are truncated to this number of tokens.
    """

    pipeline_class: str
    guidance_scale: float
    cuda_dtype: torch.dtype
    text: _TextKind
    call: Mapping[str, object]
    max_tokens: int


_ANY_SIZE = {"use_resolution_binning": False}
_EMOJI_CLIP = {"video_length": 8, "mask_feature": False, "clean_caption": False}
_GENERATORS = {
    "EmojiImageGenerator": _Row("PixArtAlphaPipeline", 2.0, torch.float32, _PIXART, _ANY_SIZE, max_tokens=120),
    "EmojiFluxImageGenerator": _Row("FluxPipeline", 3.0, torch.float32, _FLUX, {}, max_tokens=12),
    "EmojiVideoGenerator": _Row("LattePipeline", 2.0, torch.float32, _LATTE, _EMOJI_CLIP, LATTE_TOKENS),
    "PixArtAlphaImageGenerator": _Row(
        "PixArtAlphaPipeline",
        4.5,
        torch.float16,
        _PIXART,
        _ANY_SIZE,
        max_tokens=120,
    ),
    "PixArtSigmaImageGenerator": _Row(
        "PixArtSigmaPipeline",
        4.5,
        torch.float16,
        _PIXART,
        _ANY_SIZE,
        max_tokens=300,
    ),
    "FluxImageGenerator": _Row("FluxPipeline", 5.0, torch.bfloat16, _FLUX, {}, max_tokens=512),
}


def get_image_generator(
    name: str,
    weights: str | os.PathLike[str] | None = None,
    *,
    device: str = "auto",
    dtype: torch.dtype | None = None,
    only: Literal["text", "images"] | None = None,
) -> ImageGenerator:
    """Load a registered image generator, or any diffusers pipeline with one denoiser.

    Args:
        name: one of `image_generators()`; or the folder or hub id of a pipeline, or a `.json` file that describes one
            (docs/your-own-model.md).
        weights: hub id or local folder of a whole pipeline, instead of the registered one.
        device: `auto` for CUDA, MPS or the CPU, the first that is available.
        dtype: precision of the weights; by default float32 on a CPU and the model's half precision on an accelerator.
        only: load only what `encode` (`text`) or `generate` (`images`) needs.

    Raises:
        EcadError: the name is unknown, or the weights cannot be loaded.

    >>> get_image_generator("EmojiImageGenerator").pipe.__class__.__name__
    'PixArtAlphaPipeline'
    """
    chosen = choose_device(device)
    if name not in _GENERATORS:
        return _load_unregistered(name, weights, chosen, dtype)
    row = _GENERATORS[name]
    chosen_dtype = dtype or (torch.float32 if chosen == "cpu" else row.cuda_dtype)
    left_out = {None: (), "text": _IMAGE_PARTS, "images": row.text.parts}[only]
    pipe = _load(name, row, None if weights is None else os.fspath(weights), chosen_dtype, left_out)
    pipe.set_progress_bar_config(disable=True)
    if pipe.vae is not None:
        pipe.vae.to(memory_format=torch.channels_last)  # reduces decoding time by a quarter
    architecture = _architecture(name, pipe)
    return ImageGenerator(
        name=name,
        pipe=pipe.to(chosen),
        architecture=architecture,
        steps=architecture.steps,
        guidance_scale=row.guidance_scale,
        encode_prompts=row.text.encode,
        pipeline_inputs=row.text.inputs,
        call=row.call,
        max_tokens=row.max_tokens,
        text_width=architecture.transformer[row.text.width],
        text_parts=row.text.parts,
    )


def _load_unregistered(
    name: str, weights: str | os.PathLike[str] | None, device: str, dtype: torch.dtype | None
) -> ImageGenerator:
    check_image_generator(name, weights)
    known = describe(name)
    assert known is not None
    try:
        return load_any(Path(name).stem if Path(name).exists() else name, known, device, dtype)
    except EcadError as error:
        if Path(name).suffix != ".json" or str(error).startswith(name):
            raise
        raise EcadError(f"{name}: {error}") from error


def _architecture(name: str, pipe: Pipeline) -> Architecture:
    """The architecture of a loaded pipeline, whose weights may be of another size than the registered ones."""
    known = find_architecture(name)
    if pipe.transformer is None:
        return known
    config = dict(pipe.transformer.config)
    size = (config.get("sample_size") or 0) * known.pixels_per_latent
    return replace(known, transformer=config, height=size or known.height, width=size or known.width)


def get_architecture(name: str, height: int | None = None, width: int | None = None) -> Architecture:
    """The architecture of a registered generator, or of another pipeline, which is loaded and measured.

    Args:
        name: as for `get_image_generator`.
        height, width: size of an image in pixels; None for the generator's default.

    Raises:
        EcadError: the name is unknown, or the pipeline cannot be loaded.
    """
    if name in _GENERATORS:
        return find_architecture(name, height, width)
    return get_image_generator(name).architecture


def _load(name: str, row: _Row, weights: str | None, dtype: torch.dtype, left_out: tuple[str, ...]) -> Pipeline:
    import diffusers

    pipeline_class = getattr(diffusers, row.pipeline_class)
    known = WEIGHTS[name]
    source = weights or known.pipeline
    parts: dict[str, object] = dict.fromkeys(left_out)
    try:
        if weights is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # diffusers warns of a flag that it sets itself
                config = pipeline_class.load_config(weights)
            _check_family(name, weights, config)
        elif known.transformer is not None and "transformer" not in left_out:
            source = known.transformer
            transformer_class = getattr(diffusers, find_architecture(name).transformer["_class_name"])
            parts["transformer"] = transformer_class.from_pretrained(source, subfolder="transformer", dtype=dtype)
            source = known.pipeline
        pipe: Pipeline = pipeline_class.from_pretrained(source, dtype=dtype, **parts)
        return pipe
    except EcadError:
        raise
    except (OSError, ValueError) as error:
        where = "in that folder" if Path(source).exists() else "on the Hugging Face Hub or in its local cache"
        raise EcadError(
            f"{name}: the weights {source!r} were not found {where}: {first_line(error).split(' (')[0]}; pass the "
            "folder of a downloaded pipeline as `weights`, or log in to the hub if the model requires it"
        ) from error


def _check_family(name: str, weights: str, pipeline: Mapping[str, object]) -> None:
    """Refuse weights of another family, which diffusers would load partially, by the pipeline's config."""
    expected = find_architecture(name).transformer["_class_name"]
    part = pipeline.get("transformer")
    found = part[1] if isinstance(part, list | tuple) and len(part) == 2 else None
    if found != expected:
        fitting = [known for known in _GENERATORS if find_architecture(known).transformer["_class_name"] == found]
        advice = f"use the image generator {fitting[-1]}" if fitting else "use their folder as the image generator"
        raise EcadError(f"{name} needs weights with a {expected}, and {weights!r} has {found or 'none'}; {advice}")
