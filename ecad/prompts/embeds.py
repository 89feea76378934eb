"""Text embeddings of one prompt or a batch of prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class PromptEmbeds:
    """Text embeddings without padding, one entry per prompt.

    Args:
        prompt_embeds: (tokens, width) for each prompt.
        pooled: (pooled width,) for each prompt, for models with pooled embeddings.
        negative: (tokens, width) of the empty prompt, shared by all prompts, for classifier-free guidance.
    """

    prompt_embeds: tuple[Tensor, ...]
    pooled: tuple[Tensor, ...] | None = None
    negative: Tensor | None = None

    def __len__(self) -> int:
        return len(self.prompt_embeds)

    def __getitem__(self, index: Sequence[int]) -> PromptEmbeds:
        """The embeddings of the prompts at these indices, in this order."""
        pooled = None if self.pooled is None else tuple(self.pooled[i] for i in index)
        return PromptEmbeds(tuple(self.prompt_embeds[i] for i in index), pooled, self.negative)

    @classmethod
    def joined(cls, parts: Sequence[PromptEmbeds]) -> PromptEmbeds:
        """Concatenate the embeddings of several batches of prompts."""
        pooled = [row for part in parts for row in part.pooled or ()]
        return cls(tuple(row for part in parts for row in part.prompt_embeds), tuple(pooled) or None, parts[0].negative)

    def to(self, device: torch.device, dtype: torch.dtype) -> PromptEmbeds:
        """Convert to a device and a dtype."""

        def moved(rows: tuple[Tensor, ...] | None) -> tuple[Tensor, ...] | None:
            return None if rows is None else tuple(row.to(device, dtype) for row in rows)

        negative = None if self.negative is None else self.negative.to(device, dtype)
        return PromptEmbeds(moved(self.prompt_embeds) or (), moved(self.pooled), negative)
