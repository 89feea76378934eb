"""Text embeddings: what a denoiser reads of a prompt, and nothing more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ecad.errors import EcadError
from ecad.prompts.embeds import PromptEmbeds

# Masked tokens weigh exactly nothing, but a product of few or oddly many rounds otherwise: with this many a batch gives
# the very image that it gives when padded to the model's full length, for a fifth of the text's work.
_MULTIPLE = 32


def encode_pixart(pipe: Any, prompts: Sequence[str], max_tokens: int | None) -> PromptEmbeds:
    """Embeddings for a PixArt pipeline, trimmed to each prompt's own tokens: it masks its padding out."""

    def trimmed(texts: Sequence[str]) -> tuple[Tensor, ...]:
        embeds, mask, _, _ = pipe.encode_prompt(
            list(texts), do_classifier_free_guidance=False, max_sequence_length=max_tokens
        )
        return tuple(row[: int(keep.sum())].clone() for row, keep in zip(embeds, mask, strict=True))

    # On its own, so that it is the same to the last bit whatever the batch.
    return PromptEmbeds(trimmed(prompts), negative=trimmed([""])[0])


def pixart_inputs(embeds: PromptEmbeds) -> dict[str, Tensor | None]:
    """The arguments of a PixArt pipeline for a batch, padded to its longest prompt and on to a multiple of 32 tokens.

    Raises:
        EcadError: there is no negative prompt.
    """
    if embeds.negative is None:
        raise EcadError(
            "these embeddings hold no negative prompt, which PixArt is guided by; make them with `ecad embed`"
        )
    longest = max(len(row) for row in (*embeds.prompt_embeds, embeds.negative))
    length = -(-longest // _MULTIPLE) * _MULTIPLE
    positive, positive_mask = _padded(embeds.prompt_embeds, length)
    negative, negative_mask = _padded([embeds.negative] * len(embeds), length)
    return {
        "prompt_embeds": positive,
        "prompt_attention_mask": positive_mask,
        "negative_prompt_embeds": negative,
        "negative_prompt_attention_mask": negative_mask,
        "negative_prompt": None,
    }


def encode_flux(pipe: Any, prompts: Sequence[str], max_tokens: int | None) -> PromptEmbeds:
    """Embeddings for a FLUX pipeline with all their padding, which that model attends to."""
    embeds, pooled, _ = pipe.encode_prompt(list(prompts), list(prompts), max_sequence_length=max_tokens)
    return PromptEmbeds(tuple(embeds), tuple(pooled))


def flux_inputs(embeds: PromptEmbeds) -> dict[str, Tensor | None]:
    """The arguments of a FLUX pipeline for a batch."""
    if embeds.pooled is None:
        raise EcadError("these embeddings hold no pooled ones, which FLUX reads; make them with `ecad embed`")
    return {"prompt_embeds": torch.stack(embeds.prompt_embeds), "pooled_prompt_embeds": torch.stack(embeds.pooled)}


def encode_text(pipe: Any, prompts: Sequence[str], max_tokens: int | None) -> PromptEmbeds:
    """For a pipeline whose embeddings are not known: each prompt's UTF-8, one byte a token, which its call decodes."""
    rows = [torch.tensor(list(text.encode()), dtype=torch.uint8) for text in prompts]
    return PromptEmbeds(tuple(row[:, None] for row in rows))


def text_inputs(embeds: PromptEmbeds) -> dict[str, Any]:
    """The prompts of `encode_text`, in whatever precision they are by now: whole numbers to 256 are exact in all.

    >>> text_inputs(encode_text(None, ["a crêpe"], None).to("cpu", torch.bfloat16))
    {'prompt': ['a crêpe']}
    """
    return {"prompt": [bytes(row.flatten().int().tolist()).decode() for row in embeds.prompt_embeds]}


def _padded(rows: Sequence[Tensor], length: int) -> tuple[Tensor, Tensor]:
    mask = torch.stack([torch.arange(length, device=row.device) < len(row) for row in rows])
    padded = pad_sequence([*rows, rows[0].new_zeros(length, rows[0].shape[1])], batch_first=True)[:-1]
    return padded, mask.to(torch.int64)
