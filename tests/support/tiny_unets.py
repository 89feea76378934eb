"""Tiny random pipelines whose denoiser is a UNet, or has another name than `transformer`; of the real classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import torch
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

BLOCKS = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (4, 8),
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "sample_size": 8,
    "cross_attention_dim": 8,
    "attention_head_dim": (2, 4),
}
SDXL_EXTRAS = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "transformer_layers_per_block": (1, 2),
    "use_linear_projection": True,
    "projection_class_embeddings_input_dim": 6 * 8 + 6,
}


def words(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sd15() -> tuple[Any, dict[str, Any]]:
    """Stable Diffusion 1.5's classes: the pipeline and its call."""
    unet = diffusers.UNet2DConditionModel(**BLOCKS)
    pipe = diffusers.StableDiffusionPipeline(
        vae=None,
        text_encoder=None,
        tokenizer=None,
        unet=unet,
        scheduler=diffusers.PNDMScheduler(skip_prk_steps=True),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    embeds = {"prompt_embeds": words(1, 5, 8), "negative_prompt_embeds": words(1, 5, 8, seed=2)}
    return pipe, {**embeds, "height": 64, "width": 64}


def sdxl() -> tuple[Any, dict[str, Any]]:
    """SDXL's classes."""
    pipe = diffusers.StableDiffusionXLPipeline(
        vae=None,
        text_encoder=None,
        text_encoder_2=None,
        tokenizer=None,
        tokenizer_2=None,
        unet=diffusers.UNet2DConditionModel(**BLOCKS, **SDXL_EXTRAS),
        scheduler=diffusers.EulerDiscreteScheduler(),
        add_watermarker=False,
    )
    embeds = {"prompt_embeds": words(1, 5, 8), "negative_prompt_embeds": words(1, 5, 8, seed=2)}
    pooled = {"pooled_prompt_embeds": words(1, 6), "negative_pooled_prompt_embeds": words(1, 6, seed=2)}
    return pipe, {**embeds, **pooled, "height": 64, "width": 64}


def controlled() -> tuple[Any, dict[str, Any]]:
    """Stable Diffusion 1.5 with a ControlNet beside the UNet."""
    pipe, call = sd15()
    net = {name: value for name, value in BLOCKS.items() if name not in ("up_block_types", "sample_size")}
    pipe = diffusers.StableDiffusionControlNetPipeline(
        **{**pipe.components, "safety_checker": None},
        controlnet=diffusers.ControlNetModel(**net, conditioning_embedding_out_channels=(2, 2, 2, 2)),
        requires_safety_checker=False,
    )
    for part in pipe.controlnet.controlnet_down_blocks:  # a new one's are zero, and change nothing
        torch.nn.init.normal_(part.weight)
    return pipe, {**call, "image": words(1, 3, 64, 64).clamp(0, 1)}


def cascade_prior() -> tuple[Any, dict[str, Any]]:
    """Stable Cascade's prior."""
    prior = diffusers.StableCascadeUNet(
        in_channels=4,
        out_channels=4,
        conditioning_dim=8,
        block_out_channels=(8, 8),
        num_attention_heads=(2, 2),
        down_num_layers_per_block=(1, 1),
        up_num_layers_per_block=(1, 1),
        down_blocks_repeat_mappers=(1, 1),
        up_blocks_repeat_mappers=(1, 1),
        block_types_per_layer=(("SDCascadeResBlock", "SDCascadeTimestepBlock"),) * 2,
        clip_text_in_channels=8,
        clip_text_pooled_in_channels=8,
        clip_image_in_channels=8,
        clip_seq=2,
        patch_size=1,
    )
    text = {"vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    pipe = diffusers.StableCascadePriorPipeline(
        tokenizer=None,
        text_encoder=CLIPTextModelWithProjection(CLIPTextConfig(**text, projection_dim=8)),  # asked for its dtype
        feature_extractor=None,
        image_encoder=None,
        prior=prior,
        scheduler=diffusers.DDPMWuerstchenScheduler(),
    )
    embeds = {"prompt_embeds": words(1, 5, 8), "negative_prompt_embeds": words(1, 5, 8, seed=2)}
    pooled = {"prompt_embeds_pooled": words(1, 1, 8), "negative_prompt_embeds_pooled": words(1, 1, 8, seed=2)}
    return pipe, {**embeds, **pooled, "height": 256, "width": 256, "output_type": "pt"}


def video() -> tuple[Any, dict[str, Any]]:
    """ModelScope's text to video: a UNet over space and time."""
    blocks = {
        **BLOCKS,
        "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
        "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
        "attention_head_dim": 4,
    }
    pipe = diffusers.TextToVideoSDPipeline(
        vae=None,
        text_encoder=None,
        tokenizer=None,
        unet=diffusers.UNet3DConditionModel(**blocks),
        scheduler=diffusers.DDIMScheduler(),
    )
    pipe.vae_scale_factor = 8
    embeds = {"prompt_embeds": words(1, 5, 8), "negative_prompt_embeds": words(1, 5, 8, seed=2)}
    return pipe, {**embeds, "height": 64, "width": 64, "num_frames": 2}


PIPELINES: dict[str, Callable[[], tuple[Any, dict[str, Any]]]] = {
    "sd15": sd15,
    "sdxl": sdxl,
    "controlled": controlled,
    "cascade prior": cascade_prior,
    "video": video,
}


def made(name: str) -> tuple[Any, dict[str, Any]]:
    """A pipeline and its call, always the same."""
    torch.manual_seed(0)
    pipe, call = PIPELINES[name]()
    pipe.set_progress_bar_config(disable=True)
    return pipe, call


def latents(pipe: Any, call: dict[str, Any], steps: int = 6, seed: int = 7, **changes: Any) -> torch.Tensor:
    """What one generation ends with."""
    torch.manual_seed(seed)  # some draw from the global generator, too
    generator = torch.Generator().manual_seed(seed)
    output = pipe(**{"output_type": "latent", **call, **changes}, num_inference_steps=steps, generator=generator)
    return torch.as_tensor(output[0])
