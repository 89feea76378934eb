"""Runs each spatial and temporal block of a video transformer as one block, for rivals that need one layout of tokens.

These rivals reuse the difference that all blocks make, from the input of the first one to the output of the last one.
The spatial blocks of Latte have the tokens of a frame in a row, and the temporal blocks those of a place, so that the
difference of the two has no meaning. The output of a pair has the layout of its input.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from torch import nn

from rivals.put_back import put_back


class Pair(nn.Module):
    """A spatial and a temporal block, called like the spatial one.

    Args:
        spatial: gets tokens (clips x frames, places, width).
        temporal: gets tokens (clips x places, frames, width).
        frames: frames per clip.
        position: is added between the two, float (1, frames, width).
    """

    def __init__(self, spatial: nn.Module, temporal: nn.Module, frames: int, position: torch.Tensor | None) -> None:
        super().__init__()
        self.spatial, self.temporal, self.frames, self.position = spatial, temporal, frames, position

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: Any = None,
        encoder_hidden_states: Any = None,
        encoder_attention_mask: Any = None,
        timestep: Any = None,
        *rest: Any,
    ) -> torch.Tensor:
        found = self.spatial(
            hidden_states, attention_mask, encoder_hidden_states, encoder_attention_mask, timestep, *rest
        )
        places = found.shape[1]
        found = found.unflatten(0, (-1, self.frames)).transpose(1, 2).flatten(0, 1)
        if self.position is not None:
            found = found + self.position
        each = timestep[:: self.frames].repeat_interleave(places, dim=0)
        found = self.temporal(found, None, None, None, each, *rest)
        return found.unflatten(0, (-1, places)).transpose(1, 2).flatten(0, 1)


TransformerBlockRegistry.register(Pair, TransformerBlockMetadata(return_hidden_states_index=0))


def is_paired(transformer: Any) -> bool:
    """Whether spatial and temporal blocks alternate in a transformer."""
    return hasattr(transformer, "temporal_transformer_blocks")


@contextmanager
def in_pairs(pipe: Any) -> Iterator[None]:
    """Within the `with`, a pipeline's transformer has pairs of blocks; other transformers stay as they are."""
    transformer = pipe.transformer
    if not is_paired(transformer):
        yield
        return
    position = transformer.temp_pos_embed
    blocks = list(zip(transformer.transformer_blocks, transformer.temporal_transformer_blocks, strict=True))
    with put_back(pipe):
        pairs = [Pair(*both, position.shape[1], None if i else position) for i, both in enumerate(blocks)]
        transformer.transformer_blocks = nn.ModuleList(pairs)
        del transformer.temporal_transformer_blocks
        # The transformer still rearranges the tokens before and after what it takes for its temporal blocks.
        transformer.temporal_transformer_blocks = [lambda hidden, *_: hidden] * len(pairs)
        transformer.temp_pos_embed = torch.zeros_like(position)
        try:
            yield
        finally:
            transformer.temp_pos_embed = position
