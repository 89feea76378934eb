"""Finds the sites of a transformer: the submodules whose outputs a schedule may reuse."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from ecad.errors import EcadError
from ecad.runtime.families import FAMILIES, BlockList


class Site(NamedTuple):
    """One (block, component) of a denoiser, as a schedule names it, and the submodule behind it."""

    block: str
    component: str
    path: str
    module: nn.Module


def discover(transformer: nn.Module) -> list[Site]:
    """List a transformer's sites in gene order, by the table of families or by diffusers' usual submodule names.

    Arguments:
        transformer: a denoiser, compiled or not, on any device.

    Raises EcadError if it has no block with a known component.

    >>> from diffusers import PixArtTransformer2DModel
    >>> model = PixArtTransformer2DModel(2, 4, num_layers=1, cross_attention_dim=8, norm_num_groups=1)
    >>> for site in discover(model):
    ...     print(site.block, site.component, site.path)
    0 attn1 transformer_blocks.0.attn1
    0 attn2 transformer_blocks.0.attn2
    0 ff transformer_blocks.0.ff
    """
    transformer = getattr(transformer, "_orig_mod", transformer)
    sites = [
        Site(
            block_list.block_key.format(path=block_list.path, index=index),
            block_list.prefix + name,
            f"{block_list.path}.{index}.{name}",
            module,
        )
        for block_list in _block_lists(transformer)
        for index, block in enumerate(getattr(transformer, block_list.path, ()))
        for name in block_list.components
        if (module := getattr(block, name, None)) is not None
    ]
    if not sites:
        raise EcadError(
            f"{type(transformer).__name__} cannot be cached: expected a list of blocks with components such as attn1 "
            "and ff, found none"
        )
    return sites


def _block_lists(transformer: nn.Module) -> tuple[BlockList, ...]:
    names = {cls.__name__ for cls in type(transformer).__mro__}
    for family in FAMILIES:
        if not names.isdisjoint(family.transformers):
            return family.block_lists
    return tuple(BlockList(path) for path, child in transformer.named_children() if isinstance(child, nn.ModuleList))
