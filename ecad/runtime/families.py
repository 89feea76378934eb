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
    "attn2",
    "cross_attn",
    "ff",
    "ffn",
    "feed_forward",
    "mlp",
    "img_mlp",
    "ff_i",
    "ff_context",
    "txt_mlp",
    "ff_t",
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
    """Transformer classes of one build; `block_lists` in the order in which they run."""

    name: str
    transformers: tuple[str, ...]
    block_lists: tuple[BlockList, ...]


def _family(name: str, transformers: tuple[str, ...], **components: tuple[str, ...]) -> Family:
    return Family(name, transformers, tuple(BlockList(path, names) for path, names in components.items()))


_DOUBLE = ("attn", "ff", "ff_context")
_SINGLE = ("attn", "proj_mlp", "proj_out")

# Block and component names are the paper's for PixArt and FLUX.1, module paths for all others.
FAMILIES = (
    Family(
        "PixArt", ("PixArtTransformer2DModel",), (BlockList("transformer_blocks", ("attn1", "attn2", "ff"), "{index}"),)
    ),
    Family(
        "FLUX.1",
        ("FluxTransformer2DModel",),
        (
            BlockList("transformer_blocks", _DOUBLE, "{index}", "full_"),
            BlockList("single_transformer_blocks", _SINGLE, "single_{index}", "single_"),
        ),
    ),
    _family("DiT", ("DiTTransformer2DModel",), transformer_blocks=("attn1", "ff")),
    _family(
        "Latte",
        ("LatteTransformer3DModel",),
        transformer_blocks=("attn1", "attn2", "ff"),
        temporal_transformer_blocks=("attn1", "ff"),
    ),
    _family("FLUX.2", ("Flux2Transformer2DModel",), transformer_blocks=_DOUBLE, single_transformer_blocks=("attn",)),
    _family("SD3", ("SD3Transformer2DModel",), transformer_blocks=("attn", "attn2", "ff", "ff_context")),
    _family(
        "HunyuanVideo",
        ("HunyuanVideoTransformer3DModel",),
        transformer_blocks=_DOUBLE,
        single_transformer_blocks=_SINGLE,
    ),
    _family("Wan", ("WanTransformer3DModel",), blocks=("attn1", "attn2", "ffn")),
    _family("QwenImage", ("QwenImageTransformer2DModel",), transformer_blocks=("attn", "img_mlp", "txt_mlp")),
    _family("LTX", ("LTXVideoTransformer3DModel",), transformer_blocks=("attn1", "attn2", "ff")),
    _family("CogVideoX", ("CogVideoXTransformer3DModel",), transformer_blocks=("attn1", "ff")),
    _family(
        "Z-Image",
        ("ZImageTransformer2DModel",),
        noise_refiner=("attention", "feed_forward"),
        context_refiner=("attention", "feed_forward"),
        layers=("attention", "feed_forward"),
    ),
)


def readers(sites: Sequence[tuple[str, str]]) -> np.ndarray:
    """Find each site's reader: the one site that looks at its output, where that is so.

    In a block whose attention and MLP run side by side, `proj_out` alone reads `attn` and `proj_mlp`.

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
        attn, proj_mlp = (index.get((block, prefix + name)) for name in ("attn", "proj_mlp"))
        if component.endswith("proj_out") and attn is not None and proj_mlp is not None:
            found[[attn, proj_mlp]] = reader
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
