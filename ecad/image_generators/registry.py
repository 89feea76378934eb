"""The image generators that have a name, and how to load one from the hub, a folder or the package itself."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ecad import builtin
from ecad.builtin import FLUX_FOLDER, PIPELINE_FOLDER
from ecad.cost.architectures import Architecture, find_architecture
from ecad.errors import EcadError
from ecad.image_generators.generator import ImageGenerator
from ecad.image_generators.text_inputs import encode_flux, encode_pixart, flux_inputs, pixart_inputs
from ecad.image_generators.unregistered import describe, load_any
from ecad.prompts.embeds import PromptEmbeds
from ecad.utils.device import choose_device


@dataclass(frozen=True)
class _TextKind:
    """How a family of pipelines takes its text."""

    encode: Callable[[Any, Sequence[str], int | None], PromptEmbeds]
    inputs: Callable[[PromptEmbeds], dict[str, Tensor | None]]
    parts: tuple[str, ...]
    width: str


_PIXART = _TextKind(encode_pixart, pixart_inputs, ("text_encoder", "tokenizer"), "caption_channels")
_FLUX = _TextKind(
    encode_flux, flux_inputs, ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"), "joint_attention_dim"
)
_IMAGE_PARTS = ("transformer", "vae")


@dataclass(frozen=True)
class _Row:
    """A generator: where its weights are (hub id or folder) and what it is asked for by default."""

    pipeline_class: str
    weights: str
    transformer: str | None
    guidance_scale: float
    cuda_dtype: torch.dtype
    text: _TextKind
    call: dict[str, Any]
    max_tokens: int


_ANY_SIZE = {"use_resolution_binning": False}
_GENERATORS = {
    "EmojiImageGenerator": _Row(
        "PixArtAlphaPipeline", str(PIPELINE_FOLDER), None, 2.0, torch.float32, _PIXART, _ANY_SIZE, max_tokens=120
    ),
    "EmojiFluxImageGenerator": _Row(
        "FluxPipeline", str(FLUX_FOLDER), None, 3.0, torch.float32, _FLUX, {}, max_tokens=12
    ),
    "PixArtAlphaImageGenerator": _Row(
        "PixArtAlphaPipeline",
        "PixArt-alpha/PixArt-XL-2-1024-MS",
        "PixArt-alpha/PixArt-XL-2-256x256",
        4.5,
        torch.float16,
        _PIXART,
        _ANY_SIZE,
        max_tokens=120,
    ),
    "PixArtSigmaImageGenerator": _Row(
        "PixArtSigmaPipeline",
        "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
        "PixArt-alpha/PixArt-Sigma-XL-2-256x256",
        4.5,
        torch.float16,
        _PIXART,
        _ANY_SIZE,
        max_tokens=300,
    ),
    "FluxImageGenerator": _Row(
        "FluxPipeline", "black-forest-labs/FLUX.1-dev", None, 5.0, torch.bfloat16, _FLUX, {}, max_tokens=512
    ),
}


def image_generators() -> dict[str, str]:
    """The registered names and where each looks for its weights.

    >>> list(image_generators())[0]
    'EmojiImageGenerator'
    """
    return {
        name: "the package itself" if name in builtin.GENERATORS else row.transformer or row.weights
        for name, row in _GENERATORS.items()
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
            (`any_pipeline.Description`).
        weights: a hub id or a local folder of the whole pipeline, instead of the registered one.
        device: `auto` takes CUDA, then MPS, then the CPU.
        dtype: of the weights; by default float32 on a CPU, the model's own half precision on an accelerator.
        only: load no more than `encode` needs (`text`) or `generate` (`images`).

    Raises:
        EcadError: the name is unknown, or the weights cannot be found.

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
        pipe.vae.to(memory_format=torch.channels_last)  # decodes in three quarters of the time
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
    known = describe(name)
    if known is None:
        raise EcadError(
            f"image generator {name!r} is unknown: expected one of {', '.join(_GENERATORS)}, or a pipeline's folder, "
            "hub id or description (.json)"
        )
    if weights is not None:
        raise EcadError(f"--weights: expected none beside the pipeline {name!r}, found {os.fspath(weights)!r}")
    return load_any(Path(name).stem if Path(name).exists() else name, known, device, dtype)


def found_everywhere(name: str) -> str:
    """A generator's name as any process finds it, on any machine that shares the folder (see `get_image_generator`)."""
    return os.path.abspath(name) if name not in _GENERATORS and os.path.exists(name) else name


def _architecture(name: str, pipe: Any) -> Architecture:
    """What was loaded need not be what the name stands for: `--weights` may hold another size of the same family."""
    known = find_architecture(name)
    if pipe.transformer is None:
        return known
    config = dict(pipe.transformer.config)
    size = (config.get("sample_size") or 0) * known.pixels_per_latent
    return replace(known, transformer=config, height=size or known.height, width=size or known.width)


def get_architecture(name: str, height: int | None = None, width: int | None = None) -> Architecture:
    """`find_architecture`, also of a pipeline that is not registered: then it is loaded and measured.

    Raises:
        EcadError: as `get_image_generator` does.
    """
    if name in _GENERATORS:
        return find_architecture(name, height, width)
    return get_image_generator(name).architecture


def _load(name: str, row: _Row, weights: str | None, dtype: torch.dtype, left_out: tuple[str, ...]) -> Any:
    import diffusers

    pipeline_class = getattr(diffusers, row.pipeline_class)
    source = weights or row.weights
    parts: dict[str, Any] = dict.fromkeys(left_out)
    try:
        if weights is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of diffusers, about a flag of its own that does nothing
                config = pipeline_class.load_config(weights)
            _check_family(name, weights, config)
        if weights is None and row.transformer is not None and "transformer" not in left_out:
            source = row.transformer
            transformer_class = getattr(diffusers, find_architecture(name).transformer["_class_name"])
            parts["transformer"] = transformer_class.from_pretrained(source, subfolder="transformer", dtype=dtype)
            source = row.weights
        return pipeline_class.from_pretrained(source, dtype=dtype, **parts)
    except EcadError:
        raise
    except (OSError, ValueError) as error:
        where = "that folder" if Path(source).exists() else "the Hugging Face hub and its local cache"
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].split(" (")[0]
        raise EcadError(
            f"{name}: expected the weights {source!r} in {where}, but: {reason}; "
            "give the folder of a downloaded pipeline with --weights, or log in to the hub if it asks for it"
        ) from error


def _check_family(name: str, weights: str, pipeline: Mapping[str, Any]) -> None:
    """Refuse another family's weights, which diffusers would load as well as it can, by the pipeline's config."""
    expected = find_architecture(name).transformer["_class_name"]
    part = pipeline.get("transformer")
    found = part[1] if isinstance(part, list | tuple) and len(part) == 2 else None
    if found != expected:
        fitting = [known for known in _GENERATORS if find_architecture(known).transformer["_class_name"] == found]
        advice = f"give --image-generator {fitting[-1]}" if fitting else "give their folder as --image-generator"
        raise EcadError(f"{name}: expected weights with a {expected}, found {found or 'none'} in {weights!r}; {advice}")
