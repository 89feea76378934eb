"""What is known of diffusers' transformers: where their blocks are and what the components in them are called.

A transformer that is not in the table is discovered by the submodule names that diffusers uses everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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
    """A list of like blocks inside a transformer.

    Fields:
        path: the list's attribute.
        components: submodules of a block, in gene order; one that a block does not have is passed over.
        block_key: a block's name in a schedule, made of `path` and `index`.
        prefix: what a schedule writes before the submodule's name.
    """

    path: str
    components: tuple[str, ...] = COMPONENT_NAMES
    block_key: str = "{path}.{index}"
    prefix: str = ""


@dataclass(frozen=True)
class Family:
    """Transformer classes of one build.

    Fields:
        name: what people call the models.
        transformers: names of diffusers' classes; subclasses belong too.
        block_lists: in the order in which they run.
        interleaved: block 0 of every list runs before block 1 of any.
        tested: diffusers' pipelines with which the runtime is tested on tiny weights.
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

# Block and component names are the paper's for PixArt and FLUX.1, module paths for all others.
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


def readers(sites: Sequence[tuple[str, str]]) -> np.ndarray:
    """Find each site's reader: the one site that looks at its output, where that is so.

    In a block whose attention and MLP run side by side, `proj_out` alone reads `attn` and `proj_mlp`; a gated
    `proj_mlp` is read by its gate.

    Arguments:
        sites: (block, component) of each site.

    Returns int (sites,): the reader's index, or -1 where the model itself reads the output.

    >>> readers([("0", "full_attn"), ("single_0", "single_attn"), ("single_0", "single_proj_mlp"),
    ...          ("single_0", "single_proj_out")]).tolist()
    [-1, 3, 3, -1]
    """
    index = {site: position for position, site in enumerate(sites)}
    found = np.full(len(sites), -1, dtype=np.intp)
    for (block, component), reader in index.items():
        prefix = component.removesuffix("proj_out")
        attn, proj_mlp, gated = (index.get((block, prefix + name)) for name in ("attn", "proj_mlp", "gated_proj_mlp"))
        if component.endswith("proj_out") and attn is not None and (proj_mlp, gated) != (None, None):
            found[[site for site in (attn, proj_mlp) if site is not None]] = reader
    return found


def running_order(sites: Sequence[tuple[str, str]]) -> np.ndarray:
    """Sort sites as a forward runs them: as they stand, but for `proj_mlp`, which runs before `attn`.

    Arguments:
        sites: (block, component) of each site, blocks in the order in which they run.

    Returns int (sites,), a permutation.

    >>> running_order([("single_0", "single_attn"), ("single_0", "single_proj_mlp"), ("single_0", "single_proj_out")])
    array([1, 0, 2])
    """
    first: dict[str, int] = {}
    for position, (block, _) in enumerate(sites):
        first.setdefault(block, position)
    keys = [(first[block], not component.endswith("proj_mlp"), i) for i, (block, component) in enumerate(sites)]
    return np.array([i for *_, i in sorted(keys)], dtype=np.intp)
