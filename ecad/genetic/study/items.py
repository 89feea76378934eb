"""The images that every candidate is scored on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ecad.prompts import Prompt


class Item(NamedTuple):
    """One image that every candidate is scored on."""

    prompt: Prompt
    seed: int


Batch = tuple[Item, ...]


def all_items(prompts: Sequence[Prompt], seeds: Sequence[int]) -> Batch:
    """The images that a candidate is scored on: one per prompt and seed, the seeds of a prompt side by side."""
    return tuple(Item(prompt, seed) for prompt in prompts for seed in seeds)
