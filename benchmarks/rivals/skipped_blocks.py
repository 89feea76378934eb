"""Runs a transformer without its blocks in some steps, for rivals that predict what enters the last layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
from diffusers.hooks._helpers import TransformerBlockRegistry

from rivals.put_back import put_back


@contextmanager
def skipping_blocks(
    pipe: Any, runs: Callable[[], bool], enter_last: Callable[[torch.Tensor], torch.Tensor]
) -> Iterator[None]:
    """Within the `with`, the blocks of a pipeline's transformer return their inputs unless `runs` says otherwise.

    Args:
        pipe: a diffusers pipeline whose transformer ends in `norm_out`.
        runs: whether the blocks of the current forward run.
        enter_last: called in every forward with what the blocks hand to `norm_out`; returns what `norm_out` gets.
    """
    transformer = pipe.transformer
    lists = [child for name, child in transformer.named_children() if name.endswith("blocks")]
    with put_back(pipe):
        for block in (block for blocks in lists for block in blocks):
            block.forward = partial(_inputs_unless, runs, block, block.forward)
        handle = transformer.norm_out.register_forward_pre_hook(
            lambda _, args: (enter_last(args[0]), *args[1:]),
        )
        try:
            yield
        finally:
            handle.remove()


def between_key_steps(
    pipe: Any, keys: Sequence[int], forecast: Callable[[dict[int, torch.Tensor], int], torch.Tensor], most: int | None
) -> AbstractContextManager[None]:
    """A context in which a pipeline's blocks run at key steps only, and what they hand on is forecast between them.

    Args:
        pipe: as for `skipping_blocks`.
        keys: the steps that run the blocks.
        forecast: (key step -> what the blocks handed on, the newest last; step) -> what they would hand on.
        most: number of key steps that are remembered; None for all.
    """
    held: dict[int, torch.Tensor] = {}

    def now() -> int:
        return pipe.scheduler.step_index or 0

    def enter_last(features: torch.Tensor) -> torch.Tensor:
        step = now()
        if step == 0:
            held.clear()
        if step not in keys:
            return forecast(held, step)
        held[step] = features
        if most is not None and len(held) > most:
            del held[min(held)]
        return features

    return skipping_blocks(pipe, lambda: now() in keys, enter_last)


def _inputs_unless(runs: Callable[[], bool], block: Any, forward: Any, *args: Any, **kwargs: Any) -> Any:
    if runs():
        return forward(*args, **kwargs)
    hidden = input_of(block, "hidden_states", args, kwargs)
    layout = TransformerBlockRegistry.get(type(block))
    if layout.return_encoder_hidden_states_index is None:
        return hidden
    text = input_of(block, "encoder_hidden_states", args, kwargs)
    return (text, hidden) if layout.return_hidden_states_index else (hidden, text)


def input_of(block: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The value that a block's forward was called with, by position or by name."""
    return TransformerBlockRegistry.get(type(block))._get_parameter_from_args_kwargs(name, args, kwargs)
