"""How much a cache will hold, known before it holds anything: one forward on the meta device, which has shapes only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree

from ecad.runtime.kept_outputs import Storage, size_of
from ecad.sites.discovery import Site


def as_meta(arguments: Any) -> Any:
    """The same arguments of a forward with shapes and dtypes only."""
    return pytree.tree_map_only(torch.Tensor, lambda tensor: torch.empty_like(tensor, device="meta"), arguments)


def output_sizes(
    transformer: nn.Module,
    sites: Sequence[Site],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    storage: Storage | None = None,
) -> np.ndarray:
    """Bytes of each site's output when it is kept.

    Args:
        transformer: a denoiser on the meta device.
        sites: of this denoiser.
        args, kwargs: of one forward, tensors on the meta device.
        storage: how outputs are kept.

    Returns:
        int64 (sites + 1,); the last is what the forward returns.

    >>> from diffusers import PixArtTransformer2DModel
    >>> from ecad.sites.discovery import discover
    >>> with torch.device("meta"):
    ...     model = PixArtTransformer2DModel(2, 4, num_layers=1, cross_attention_dim=8, norm_num_groups=1,
    ...                                      sample_size=8, caption_channels=6)
    ...     inputs = {"hidden_states": torch.empty(2, 4, 8, 8), "encoder_hidden_states": torch.empty(2, 3, 6),
    ...               "timestep": torch.empty(2), "added_cond_kwargs": {}}
    >>> output_sizes(model, discover(model), (), inputs).tolist()  # 2 images: 16 tokens of 8 numbers, 64 pixels of 8
    [1024, 1024, 1024, 4096]
    """
    sizes = np.zeros(len(sites) + 1, dtype=np.int64)
    smaller = Storage(dtype=None if storage is None else storage.dtype)

    def measure(index: int, output: Any) -> None:
        sizes[index] = size_of(smaller.put(output))

    handles = [
        site.module.register_forward_hook(lambda module, inputs, output, index=index: measure(index, output))
        for index, site in enumerate(sites)
    ]
    try:
        with torch.no_grad():
            result = transformer(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    # Copied when it is kept, which what is a view of something larger then is no more.
    measure(-1, tuple(leaf.clone() for leaf in pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)))
    return sizes


def floating_dtype(module: nn.Module) -> torch.dtype:
    """The dtype of a model's first floating point weight: quantised ones are integers."""
    return next(one.dtype for one in module.parameters() if one.is_floating_point())


def on_meta(module: nn.Module) -> nn.Module:
    """A diffusers model of the same configuration and dtype without weights."""
    with torch.device("meta"):
        twin: nn.Module = type(module).from_config(module.config)  # type: ignore[attr-defined]
    return twin.to(floating_dtype(module)).eval()
