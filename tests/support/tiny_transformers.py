"""Diffusers' own transformers, tiny and random."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from torch import nn

_SMALL = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2}
_ROPE = {"axes_dims_rope": (2, 2, 4)}
_FLUX = {**_SMALL, **_ROPE, "num_single_layers": 2, "in_channels": 16, "joint_attention_dim": 12}
_FLUX2 = {
    **_SMALL,
    "num_single_layers": 2,
    "in_channels": 16,
    "joint_attention_dim": 12,
    "axes_dims_rope": (2, 2, 2, 2),
}
_WAN = {**_SMALL, "attention_head_dim": 12, "ffn_dim": 16, "text_dim": 12, "freq_dim": 16, "in_channels": 4}

# Arguments that make a transformer tiny.
TRANSFORMERS: dict[str, dict[str, Any]] = {
    "PixArtTransformer2DModel": {
        **_SMALL,
        "out_channels": 8,
        "cross_attention_dim": 16,
        "caption_channels": 12,
        "sample_size": 8,
        "norm_num_groups": 1,
        "use_additional_conditions": False,
    },
    "DiTTransformer2DModel": {**_SMALL, "sample_size": 8, "norm_num_groups": 1, "out_channels": 8},
    "LatteTransformer3DModel": {
        **_SMALL,
        "in_channels": 4,
        "out_channels": 8,
        "sample_size": 8,
        "patch_size": 2,
        "cross_attention_dim": 16,
        "caption_channels": 12,
        "video_length": 2,
        "norm_type": "ada_norm_single",
        "norm_elementwise_affine": False,
    },
    "FluxTransformer2DModel": {**_FLUX, "pooled_projection_dim": 6, "guidance_embeds": True},
    "Flux2Transformer2DModel": {**_FLUX2, "timestep_guidance_channels": 16},
    "ChromaTransformer2DModel": {
        **_FLUX,
        "approximator_num_channels": 8,
        "approximator_hidden_dim": 16,
        "approximator_layers": 1,
    },
    "SD3Transformer2DModel": {
        **_SMALL,
        "num_layers": 3,
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "caption_projection_dim": 16,
        "joint_attention_dim": 12,
        "pooled_projection_dim": 6,
        "pos_embed_max_size": 8,
        "dual_attention_layers": (0,),
    },
    "HunyuanVideoTransformer3DModel": {
        **_SMALL,
        "in_channels": 4,
        "out_channels": 4,
        "num_single_layers": 2,
        "num_refiner_layers": 1,
        "text_embed_dim": 12,
        "pooled_projection_dim": 6,
        "rope_axes_dim": (2, 2, 4),
    },
    "WanTransformer3DModel": {**_WAN, "out_channels": 4},
    "WanVACETransformer3DModel": {**_WAN, "out_channels": 4, "vace_layers": [0, 1], "vace_in_channels": 8},
    "QwenImageTransformer2DModel": {**_SMALL, **_ROPE, "in_channels": 16, "out_channels": 4, "joint_attention_dim": 12},
    "LTXVideoTransformer3DModel": {
        **_SMALL,
        "in_channels": 8,
        "out_channels": 8,
        "cross_attention_dim": 16,
        "caption_channels": 12,
    },
    "CogVideoXTransformer3DModel": {
        **_SMALL,
        "in_channels": 4,
        "out_channels": 4,
        "time_embed_dim": 8,
        "text_embed_dim": 12,
        "sample_width": 8,
        "sample_height": 8,
        "sample_frames": 5,
        "max_text_seq_length": 5,
    },
    "ZImageTransformer2DModel": {
        "in_channels": 4,
        "dim": 32,
        "n_layers": 2,
        "n_refiner_layers": 1,
        "n_heads": 2,
        "n_kv_heads": 2,
        "cap_feat_dim": 12,
        "axes_dims": [4, 4, 8],
        "axes_lens": [64, 32, 32],
    },
    "SanaTransformer2DModel": {
        **_SMALL,
        "in_channels": 4,
        "out_channels": 4,
        "num_cross_attention_heads": 2,
        "cross_attention_head_dim": 8,
        "cross_attention_dim": 16,
        "caption_channels": 12,
        "sample_size": 8,
    },
    "AuraFlowTransformer2DModel": {
        "sample_size": 8,
        "num_mmdit_layers": 2,
        "num_single_dit_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "joint_attention_dim": 12,
        "caption_projection_dim": 16,
        "pos_embed_max_size": 64,
    },
    "Lumina2Transformer2DModel": {
        "sample_size": 8,
        "in_channels": 4,
        "hidden_size": 24,
        "num_layers": 2,
        "num_refiner_layers": 1,
        "num_attention_heads": 2,
        "num_kv_heads": 1,
        "multiple_of": 8,
        "axes_dim_rope": (4, 4, 4),
        "axes_lens": (32, 32, 32),
        "cap_feat_dim": 12,
    },
}


def transformer(name: str, seed: int = 0, **changes: Any) -> nn.Module:
    """A transformer of the list above, tiny and random."""
    return build(name, seed, **TRANSFORMERS[name] | changes)


def build(name: str, seed: int = 0, **config: Any) -> nn.Module:
    """A transformer with weights large enough that every component leaves its mark on the latents."""
    module = getattr(diffusers, name)(**config)
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return module.eval()
