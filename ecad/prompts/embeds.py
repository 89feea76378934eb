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
    """The embeddings of some prompts, one entry a prompt, each without its padding.

    Args:
        prompt_embeds: for each prompt (tokens, width).
        pooled: for each prompt (pooled width,), for models that read it.
        negative: (tokens, width) of the empty prompt, shared by all, for models guided by a second pass.
    """

    prompt_embeds: tuple[Tensor, ...]
    pooled: tuple[Tensor, ...] | None = None
    negative: Tensor | None = None

    def __len__(self) -> int:
        return len(self.prompt_embeds)

    def __getitem__(self, index: Sequence[int]) -> PromptEmbeds:
        """The embeddings of the prompts at these places, in this order."""
        pooled = None if self.pooled is None else tuple(self.pooled[i] for i in index)
        return PromptEmbeds(tuple(self.prompt_embeds[i] for i in index), pooled, self.negative)

    @classmethod
    def joined(cls, parts: Sequence[PromptEmbeds]) -> PromptEmbeds:
        """The embeddings of several batches of prompts of one model in one."""
        pooled = [row for part in parts for row in part.pooled or ()]
        return cls(tuple(row for part in parts for row in part.prompt_embeds), tuple(pooled) or None, parts[0].negative)

    def to(self, device: torch.device, dtype: torch.dtype) -> PromptEmbeds:
        """The same on another device and in another precision."""

        def moved(rows: tuple[Tensor, ...] | None) -> tuple[Tensor, ...] | None:
            return None if rows is None else tuple(row.to(device, dtype) for row in rows)

        negative = None if self.negative is None else self.negative.to(device, dtype)
        return PromptEmbeds(moved(self.prompt_embeds) or (), moved(self.pooled), negative)
