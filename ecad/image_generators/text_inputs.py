"""Encodes prompts, and turns text embeddings into the arguments of a pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ecad.errors import EcadError
from ecad.prompts.embeds import PromptEmbeds
from ecad.utils.protocols import Pipeline

# Masked tokens have a weight of exactly 0, but matrix products of other lengths may round differently. Padded to a
# multiple of this number, a batch gives the same image as padded to the model's full length, at a fifth of the cost.
_PAD_MULTIPLE = 32
# Text length of the built-in video model.
LATTE_TOKENS = 16


def encode_pixart(pipe: Pipeline, prompts: Sequence[str], max_tokens: int | None) -> PromptEmbeds:
    """Encode prompts for a PixArt pipeline. The padding, which the model masks, is removed."""

    def trimmed(texts: Sequence[str]) -> tuple[Tensor, ...]:
        embeds, mask, _, _ = pipe.encode_prompt(
            list(texts), do_classifier_free_guidance=False, max_sequence_length=max_tokens
        )
        return tuple(row[: int(keep.sum())].clone() for row, keep in zip(embeds, mask, strict=True))

    # Encoded alone, so that it is bit-identical whatever the batch.
    return PromptEmbeds(trimmed(prompts), negative=trimmed([""])[0])


def pixart_inputs(embeds: PromptEmbeds) -> dict[str, Tensor | None]:
    """The arguments of a PixArt pipeline for a batch, padded to its longest prompt and to a multiple of 32 tokens.

    Raises:
        EcadError: the embeddings have no negative prompt.
    """
    if embeds.negative is None:
        raise EcadError(
            "the embeddings have no negative prompt, which PixArt needs for guidance; make them with `ecad embed`"
        )
    longest = max(len(row) for row in (*embeds.prompt_embeds, embeds.negative))
    length = -(-longest // _PAD_MULTIPLE) * _PAD_MULTIPLE
    positive, positive_mask = _padded(embeds.prompt_embeds, length)
    negative, negative_mask = _padded([embeds.negative] * len(embeds), length)
    return {
        "prompt_embeds": positive,
        "prompt_attention_mask": positive_mask,
        "negative_prompt_embeds": negative,
        "negative_prompt_attention_mask": negative_mask,
        "negative_prompt": None,
    }


def encode_latte(pipe: Pipeline, prompts: Sequence[str], max_tokens: int | None) -> PromptEmbeds:
    """Encode prompts for a Latte pipeline, without padding; longer ones are truncated to `max_tokens`."""

    def encoded(text: str) -> Tensor:
        found = pipe.tokenizer(text, max_length=max_tokens, truncation=max_tokens is not None, return_tensors="pt")
        # Alone, so that it is bit-identical whatever the batch.
        row: Tensor = pipe.text_encoder(found.input_ids.to(pipe.text_encoder.device))[0][0]
        return row

    return PromptEmbeds(tuple(encoded(text) for text in prompts), negative=encoded(""))


def latte_inputs(embeds: PromptEmbeds) -> dict[str, Tensor | None]:
    """The arguments of a Latte pipeline for a batch, padded with zeros to `LATTE_TOKENS`.

    Latte's attention to the text has no mask. It sees the zeros, so there must be as many as in training.

    Raises:
        EcadError: the embeddings have no negative prompt.
    """
    if embeds.negative is None:
        raise EcadError(
            "the embeddings have no negative prompt, which Latte needs for guidance; make them with `ecad embed`"
        )
    return {
        "prompt_embeds": _padded(embeds.prompt_embeds, LATTE_TOKENS)[0],
        "negative_prompt_embeds": _padded([embeds.negative] * len(embeds), LATTE_TOKENS)[0],
        "negative_prompt": None,
    }


def encode_flux(pipe: Pipeline, prompts: Sequence[str], max_tokens: int | None) -> PromptEmbeds:
    """Encode prompts for a FLUX pipeline, with all padding, which the model attends to."""
    embeds, pooled, _ = pipe.encode_prompt(list(prompts), list(prompts), max_sequence_length=max_tokens)
    return PromptEmbeds(tuple(embeds), tuple(pooled))


def flux_inputs(embeds: PromptEmbeds) -> dict[str, Tensor | None]:
    """The arguments of a FLUX pipeline for a batch.

    Raises:
        EcadError: the embeddings have no pooled embeddings.
    """
    if embeds.pooled is None:
        raise EcadError("the embeddings have no pooled embeddings, which FLUX needs; make them with `ecad embed`")
    return {"prompt_embeds": torch.stack(embeds.prompt_embeds), "pooled_prompt_embeds": torch.stack(embeds.pooled)}


def encode_text(pipe: object, prompts: Sequence[str], max_tokens: int | None) -> PromptEmbeds:
    """Store prompts as UTF-8, one byte per token, for a pipeline that takes its prompts as text."""
    rows = [torch.tensor(list(text.encode()), dtype=torch.uint8) for text in prompts]
    return PromptEmbeds(tuple(row[:, None] for row in rows))


def text_inputs(embeds: PromptEmbeds) -> dict[str, Any]:
    """The prompts that `encode_text` stored. All floating-point formats represent whole numbers up to 256 exactly.

    >>> text_inputs(encode_text(None, ["a crêpe"], None).to("cpu", torch.bfloat16))
    {'prompt': ['a crêpe']}
    """
    return {"prompt": [bytes(row.flatten().int().tolist()).decode() for row in embeds.prompt_embeds]}


def _padded(rows: Sequence[Tensor], length: int) -> tuple[Tensor, Tensor]:
    mask = torch.stack([torch.arange(length, device=row.device) < len(row) for row in rows])
    padded = pad_sequence([*rows, rows[0].new_zeros(length, rows[0].shape[1])], batch_first=True)[:-1]
    return padded, mask.to(torch.int64)
