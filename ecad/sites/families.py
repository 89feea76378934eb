"""A table of diffusers' transformers: where their blocks are and what their components are called.

A transformer that is not in the table is searched for the submodule names that diffusers commonly uses.
"""

from __future__ import annotations

from dataclasses import dataclass

# Submodules of a block that may be components, in gene order.
COMPONENT_NAMES = (
    "attn",
    "attn1",
    "self_attn",
    "self_attention",
    "attention",
    "audio_attn1",
    "attn2",
    "cross_attn",
    "cross_attention",
    "audio_attn2",
    "audio_to_video_attn",
    "va_cross_attention",
    "video_to_audio_attn",
    "av_cross_attention",
    "ff",
    "ffn",
    "feed_forward",
    "mlp",
    "img_mlp",
    "ff_i",
    "ff_context",
    "txt_mlp",
    "ff_t",
    "audio_ff",
    "proj_mlp",
    "proj_out",
)


@dataclass(frozen=True)
class BlockList:
    """A list of equal blocks inside a transformer.

    Args:
        path: the attribute of the transformer that holds the list.
        components: submodules of a block, in gene order; those that a block does not have are skipped.
        block_key: the format of a block's name in a schedule, from `path` and `index`.
        prefix: what a schedule puts before the submodule's name.
    """

    path: str
    components: tuple[str, ...] = COMPONENT_NAMES
    block_key: str = "{path}.{index}"
    prefix: str = ""


@dataclass(frozen=True)
class Family:
    """Transformer classes with the same structure.

    Args:
        name: what the models are called.
        transformers: class names in diffusers; subclasses are included.
        block_lists: the lists of blocks, in the order in which they run.
        interleaved: whether block 0 of every list runs before block 1 of any list.
        tested: pipelines in diffusers with which the runtime is tested, with tiny weights.
    """

    name: str
    transformers: tuple[str, ...]
    block_lists: tuple[BlockList, ...]
    interleaved: bool = False
    tested: tuple[str, ...] = ()


_DOUBLE = ("attn", "ff", "ff_context")
_SINGLE = ("attn", "proj_mlp", "proj_out")
_LUMINA = ("attn", "feed_forward")
_WAN = ("attn1", "attn2", "ffn")
_Z_IMAGE = ("attention", "feed_forward")

# Block and component names are those of the paper for PixArt and FLUX.1, and module paths for all others.
FAMILIES = (
    Family(
        "PixArt",
        ("PixArtTransformer2DModel",),
        (BlockList("transformer_blocks", ("attn1", "attn2", "ff"), "{index}"),),
        tested=("PixArtAlphaPipeline", "PixArtSigmaPipeline"),
    ),
    Family(
        "FLUX.1",
        ("FluxTransformer2DModel",),
        (
            BlockList("transformer_blocks", _DOUBLE, "{index}", "full_"),
            BlockList("single_transformer_blocks", _SINGLE, "single_{index}", "single_"),
        ),
        tested=(
            "FluxPipeline",
            "FluxImg2ImgPipeline",
            "FluxInpaintPipeline",
            "FluxControlPipeline",
            "FluxKontextPipeline",
        ),
    ),
    Family(
        "FLUX.2",
        ("Flux2Transformer2DModel",),
        (BlockList("transformer_blocks", _DOUBLE), BlockList("single_transformer_blocks", ("attn",))),
        tested=("Flux2Pipeline", "Flux2KleinPipeline"),
    ),
    Family(
        "DiT",
        ("DiTTransformer2DModel",),
        (BlockList("transformer_blocks", ("attn1", "ff")),),
        tested=("DiTPipeline",),
    ),
    Family(
        "Latte",
        ("LatteTransformer3DModel",),
        (
            BlockList("transformer_blocks", ("attn1", "attn2", "ff")),
            BlockList("temporal_transformer_blocks", ("attn1", "ff")),
        ),
        interleaved=True,
        tested=("LattePipeline",),
    ),
    Family(
        "SD3, SD3.5",
        ("SD3Transformer2DModel",),
        (BlockList("transformer_blocks", ("attn", "attn2", "ff", "ff_context")),),
        tested=("StableDiffusion3Pipeline",),
    ),
    Family(
        "HunyuanVideo",
        ("HunyuanVideoTransformer3DModel",),
        (BlockList("transformer_blocks", _DOUBLE), BlockList("single_transformer_blocks", _SINGLE)),
        tested=("HunyuanVideoPipeline",),
    ),
    Family(
        "Wan 2.1, 2.2",
        ("WanTransformer3DModel",),
        (BlockList("blocks", _WAN),),
        tested=("WanPipeline", "WanVideoToVideoPipeline"),
    ),
    Family(
        "Wan VACE",
        ("WanVACETransformer3DModel",),
        (BlockList("vace_blocks", _WAN), BlockList("blocks", _WAN)),
    ),
    Family(
        "QwenImage",
        ("QwenImageTransformer2DModel",),
        (BlockList("transformer_blocks", ("attn", "img_mlp", "txt_mlp")),),
        tested=("QwenImagePipeline",),
    ),
    Family(
        "LTX",
        ("LTXVideoTransformer3DModel",),
        (BlockList("transformer_blocks", ("attn1", "attn2", "ff")),),
        tested=("LTXPipeline",),
    ),
    Family(
        "CogVideoX",
        ("CogVideoXTransformer3DModel",),
        (BlockList("transformer_blocks", ("attn1", "ff")),),
        tested=("CogVideoXPipeline",),
    ),
    Family(
        "Z-Image",
        ("ZImageTransformer2DModel",),
        (
            BlockList("noise_refiner", _Z_IMAGE),
            BlockList("context_refiner", _Z_IMAGE),
            BlockList("layers", _Z_IMAGE),
        ),
        tested=("ZImagePipeline",),
    ),
    Family(
        "Sana",
        ("SanaTransformer2DModel",),
        (BlockList("transformer_blocks", ("attn1", "attn2", "ff")),),
        tested=("SanaPipeline",),
    ),
    Family(
        "AuraFlow",
        ("AuraFlowTransformer2DModel",),
        (BlockList("joint_transformer_blocks", _DOUBLE), BlockList("single_transformer_blocks", ("attn", "ff"))),
        tested=("AuraFlowPipeline",),
    ),
    Family(
        "Lumina 2",
        ("Lumina2Transformer2DModel",),
        (
            BlockList("context_refiner", _LUMINA),
            BlockList("noise_refiner", _LUMINA),
            BlockList("layers", _LUMINA),
        ),
        tested=("Lumina2Pipeline",),
    ),
    Family(
        "Chroma",
        ("ChromaTransformer2DModel",),
        (BlockList("transformer_blocks", _DOUBLE), BlockList("single_transformer_blocks", _SINGLE)),
        tested=("ChromaPipeline",),
    ),
)
