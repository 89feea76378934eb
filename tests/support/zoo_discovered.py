"""Transformers of which the runtime's table knows nothing: discovered by the names of their submodules."""

from __future__ import annotations

from collections.abc import Callable

import torch
from tiny_transformers import build
from zoo import Loop, Specimen, noise

DOUBLE, SINGLE = "attn ff ff_context", "attn proj_mlp proj_out"
SMALL = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2}
FLUX_LIKE = {**SMALL, "num_single_layers": 2, "in_channels": 16, "joint_attention_dim": 12, "axes_dims_rope": (2, 2, 4)}


def flux_like(name: str, single: str = SINGLE, **model: object) -> Specimen:
    inputs = {"encoder_hidden_states": noise(1, 5, 12), "img_ids": torch.zeros(16, 3), "txt_ids": torch.zeros(5, 3)}
    pipe = Loop(build(name, **FLUX_LIKE, **model), (1, 16, 16), **inputs)
    return Specimen(pipe, {"transformer_blocks": DOUBLE, "single_transformer_blocks": single}, {})


def ovis() -> Specimen:
    """The only one whose MLP beside the attention is gated: it cannot be skipped."""
    return flux_like("OvisImageTransformer2DModel", "attn proj_mlp=gated_proj_mlp proj_out", out_channels=16)


def bria() -> Specimen:
    specimen = flux_like("BriaTransformer2DModel")
    specimen.pipe.inputs["pooled_projections"] = None
    return specimen


def hunyuan_image() -> Specimen:
    model = build(
        "HunyuanImageTransformer2DModel",
        **SMALL,
        in_channels=4,
        out_channels=4,
        num_single_layers=2,
        num_refiner_layers=1,
        text_embed_dim=12,
        rope_axes_dim=(4, 4),
    )
    inputs = {"encoder_hidden_states": noise(1, 5, 12), "encoder_attention_mask": torch.ones(1, 5)}
    pipe = Loop(model, (1, 4, 4, 4), **inputs)
    return Specimen(pipe, {"transformer_blocks": DOUBLE, "single_transformer_blocks": SINGLE}, {})


def mochi() -> Specimen:
    model = build(
        "MochiTransformer3DModel",
        **SMALL,
        in_channels=4,
        pooled_projection_dim=16,
        text_embed_dim=16,
        time_embed_dim=8,
        max_sequence_length=5,
    )
    inputs = {"encoder_hidden_states": noise(1, 5, 16), "encoder_attention_mask": torch.ones(1, 5)}
    return Specimen(Loop(model, (1, 4, 2, 8, 8), **inputs), {"transformer_blocks": "attn1 ff ff_context"}, {})


def kandinsky() -> Specimen:
    model = build(
        "Kandinsky5Transformer3DModel",
        in_text_dim=12,
        in_text_dim2=6,
        time_dim=8,
        model_dim=16,
        ff_dim=16,
        num_text_blocks=1,
        num_visual_blocks=2,
        axes_dims=(4, 2, 2),
    )
    inputs = {
        "encoder_hidden_states": noise(1, 5, 12),
        "pooled_projections": noise(1, 6),
        "visual_rope_pos": [torch.arange(2), torch.arange(4), torch.arange(4)],
        "text_rope_pos": torch.arange(5),
    }
    blocks = {
        "text_transformer_blocks": "self_attention feed_forward",
        "visual_transformer_blocks": "self_attention cross_attention feed_forward",
    }
    return Specimen(Loop(model, (1, 2, 8, 8, 4), **inputs), blocks, {})


def hidream() -> Specimen:
    model = build(
        "HiDreamImageTransformer2DModel",
        **SMALL,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_single_layers=2,
        caption_channels=[12, 12],
        text_emb_dim=6,
        num_routed_experts=2,
        num_activated_experts=1,
        axes_dims_rope=(2, 2, 4),
        max_resolution=(8, 8),
        llama_layers=[0, 1, 0, 1],
    )
    inputs = {
        "encoder_hidden_states_t5": noise(1, 5, 12),
        "encoder_hidden_states_llama3": noise(2, 1, 5, 12),
        "pooled_embeds": noise(1, 6),
    }
    blocks = {"double_stream_blocks.{}.block": "attn1 ff_i ff_t", "single_stream_blocks.{}.block": "attn1 ff_i"}
    return Specimen(Loop(model, (1, 4, 8, 8), "timesteps", **inputs), blocks, {})


def cosmos() -> Specimen:
    model = build(
        "CosmosTransformer3DModel",
        **{**SMALL, "attention_head_dim": 16},
        in_channels=4,
        out_channels=4,
        text_embed_dim=12,
        adaln_lora_dim=4,
        max_size=(4, 8, 8),
        concat_padding_mask=False,
    )
    pipe = Loop(model, (1, 4, 2, 8, 8), encoder_hidden_states=noise(1, 5, 12))
    return Specimen(pipe, {"transformer_blocks": "attn1 attn2 ff"}, {})


DISCOVERED: dict[str, Callable[[], Specimen]] = {
    "Bria": bria,
    "Ovis": ovis,
    "LongCat": lambda: flux_like("LongCatImageTransformer2DModel", pooled_projection_dim=6),
    "HunyuanImage": hunyuan_image,
    "Mochi": mochi,
    "Kandinsky 5": kandinsky,
    "HiDream": hidream,
    "Cosmos": cosmos,
}
