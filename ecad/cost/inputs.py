"""The inputs of a denoiser's forward, as meta tensors, for each known transformer class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from ecad.cost.architectures import Architecture
from ecad.errors import EcadError

# The configuration of a transformer, and keyword arguments of its forward.
Config = Mapping[str, Any]
Inputs = dict[str, Any]


def forward_inputs(architecture: Architecture, height: int, width: int, text_tokens: int) -> dict[str, torch.Tensor]:
    """Keyword arguments of the forward in one step of one image; shapes only (meta device).

    Args:
        architecture: the denoiser.
        height, width: size of the image in pixels.
        text_tokens: length of the text sequence.

    Raises:
        EcadError: the denoiser cannot take the size, or its class is not in the table.
    """
    check_size(architecture, height, width)
    config = architecture.transformer
    batch = 2 if architecture.guidance_pair else 1
    latent = height // architecture.pixels_per_latent, width // architecture.pixels_per_latent
    with torch.device("meta"):
        return _INPUTS[config["_class_name"]].make(config, batch, *latent, text_tokens)


def check_size(architecture: Architecture, height: int, width: int) -> None:
    """Check that a denoiser can make images of a size.

    Args:
        architecture: the denoiser.
        height, width: size of the image in pixels.

    Raises:
        EcadError: the size is not a multiple of the denoiser's patches, differs from the size that was measured, or
            the denoiser's class is not in the table.
    """
    if architecture.measured is not None:
        if (height, width) != (architecture.height, architecture.width):
            raise EcadError(
                f"{architecture.image_generator} was measured at {architecture.height}x{architecture.width}, and "
                f"{height}x{width} was requested; set height and width in the description of the pipeline"
            )
        return
    config = architecture.transformer
    name = config.get("_class_name")
    if name not in _INPUTS:
        raise EcadError(
            f"the inputs of transformer class {name!r} are not known: expected one of {', '.join(_INPUTS)}; "
            "for another class, call ecad.cost.measure.measure with a forward's arguments"
        )
    unit = architecture.pixels_per_latent * _INPUTS[name].patch_size(config)
    if height < 1 or width < 1 or height % unit or width % unit:
        raise EcadError(
            f"image size {height}x{width} does not fit {architecture.image_generator}: height and width must be "
            f"positive multiples of {unit}"
        )


def _pixart(config: Config, batch: int, height: int, width: int, text_tokens: int) -> Inputs:
    text_width = config.get("caption_channels") or config.get("cross_attention_dim", 1152)
    return {
        "hidden_states": torch.empty(batch, config.get("in_channels", 4), height, width),
        "encoder_hidden_states": torch.empty(batch, text_tokens, text_width),
        "encoder_attention_mask": torch.empty(batch, text_tokens),
        "timestep": torch.empty(batch),
        "added_cond_kwargs": {"resolution": torch.empty(batch, 2), "aspect_ratio": torch.empty(batch, 1)},
    }


def _latte(config: Config, batch: int, height: int, width: int, text_tokens: int) -> Inputs:
    return {
        "hidden_states": torch.empty(batch, config["in_channels"], config.get("video_length", 16), height, width),
        "timestep": torch.empty(batch),
        "encoder_hidden_states": torch.empty(batch, text_tokens, config["caption_channels"]),
    }


def _flux(config: Config, batch: int, height: int, width: int, text_tokens: int) -> Inputs:
    image_tokens = (height // 2) * (width // 2)
    return {
        "hidden_states": torch.empty(batch, image_tokens, config.get("in_channels", 64)),
        "encoder_hidden_states": torch.empty(batch, text_tokens, config.get("joint_attention_dim", 4096)),
        "pooled_projections": torch.empty(batch, config.get("pooled_projection_dim", 768)),
        "timestep": torch.empty(batch),
        "guidance": torch.empty(batch) if config.get("guidance_embeds") else None,
        "img_ids": torch.empty(image_tokens, 3),
        "txt_ids": torch.empty(text_tokens, 3),
    }


class _Inputs(NamedTuple):
    """Per transformer class: config -> latents along the side of a token, and the function that makes the inputs."""

    patch_size: Callable[[Config], int]
    make: Callable[[Config, int, int, int, int], Inputs]


_INPUTS = {
    "PixArtTransformer2DModel": _Inputs(lambda config: config.get("patch_size", 2), _pixart),
    "LatteTransformer3DModel": _Inputs(lambda config: config["patch_size"], _latte),
    "FluxTransformer2DModel": _Inputs(lambda config: 2, _flux),  # its pipeline packs 2 x 2 latents
}
