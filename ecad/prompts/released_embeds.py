"""Text embeddings in the format of the paper's release: one torch-saved dict per prompt, with padding."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ecad.errors import EcadError
from ecad.prompts.embeds import PromptEmbeds
from ecad.prompts.files import Prompt
from ecad.prompts.names import prompt_key, without_colons


def describe(file: Path) -> tuple[str, Prompt, int]:
    """What a file's name tells: the prefix of its images' names, the prompt without its text, and the seed."""
    seed = re.search(r"__prompt_seed[:-](-?\d+)", file.stem)
    name = prompt_key(file.stem, "image_reward") or prompt_key(file.stem, "mjhq")
    return without_colons(file.stem), Prompt(str(name), ""), int(seed[1]) if seed else 0


def load(files: Sequence[Path]) -> PromptEmbeds:
    """The embeddings of some prompts of one folder on the CPU, without padding if there is an attention mask.

    Raises:
        EcadError: a file cannot be read, or holds something else.
    """
    contents = {file: _read(file) for file in files}
    prompts = tuple(_trimmed(file, contents[file], "prompt_embeds", "prompt_attention_mask") for file in files)
    pooled = [
        _tensor(file, contents[file], "pooled_prompt_embeds", 1)
        for file in files
        if "pooled_prompt_embeds" in contents[file]
    ]
    negatives = [
        _trimmed(file, content, "negative_prompt_embeds", "negative_prompt_attention_mask")
        for file, content in contents.items()
        if "negative_prompt_embeds" in content
    ]
    if any(not torch.equal(negatives[0], other) for other in negatives[1:]):
        raise EcadError(f"{files[0].parent}: expected one negative prompt for all embeddings, found several")
    return PromptEmbeds(prompts, tuple(pooled) or None, negatives[0] if negatives else None)


def _read(file: Path) -> dict[str, object]:
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    # torch.load raises whatever its parsers raise.
    except Exception as error:
        reason = " ".join(str(error).split())[:80]
        raise EcadError(f"{file}: torch.load cannot read these embeddings: {reason}") from error
    if not isinstance(content, dict):
        raise EcadError(f"{file}: expected a dict with 'prompt_embeds', found {type(content).__name__}")
    return content


def _tensor(file: Path, content: dict[str, object], name: str, dims: int) -> Tensor:
    value = content.get(name)
    if isinstance(value, Tensor) and value.dim() == dims + 1 and len(value) == 1:
        value = value[0]
    if not isinstance(value, Tensor) or value.dim() != dims:
        found = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise EcadError(f"{file}: expected {name!r}, a tensor of {dims} dimensions, found {found}")
    return value


def _trimmed(file: Path, content: dict[str, object], name: str, mask: str) -> Tensor:
    embeds = _tensor(file, content, name, 2)
    if mask not in content:
        return embeds
    keep = _tensor(file, content, mask, 1).bool()
    if len(keep) != len(embeds) or not keep.any():
        raise EcadError(
            f"{file}: expected {mask!r} to keep some of {len(embeds)} tokens, found {int(keep.sum())} of {len(keep)}"
        )
    return embeds[keep]
