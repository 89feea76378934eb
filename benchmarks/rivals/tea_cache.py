"""TeaCache (Liu et al., arXiv 2411.19108), reimplemented from its description: the first block's input tells.

The relative change of the first block's modulated input from step to step, mapped by a polynomial to the change of the
model's output, is added up. While the sum is below a threshold, no block runs, and the last computed change between
the first block's input and the last layer's is added instead. The first and the last step run. The polynomial is fitted
to uncached images of the calibration, as its authors do for each model.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch

from rivals.setting import Calibration, Setting
from rivals.skipped_blocks import input_of, skipping_blocks

DEGREE = 4
# 0.25 to 0.8 are its authors' for FLUX, 0.1 and 0.15 for video models.
THRESHOLDS = (0.1, 0.15, 0.25, 0.4, 0.6, 0.8)


def all_of_tea_cache(calibration: Calibration) -> list[Setting]:
    """Each threshold."""
    if calibration.steps < DEGREE + 2:
        return [Setting("TeaCache", "all", unusable=f"{calibration.steps} steps are too few to fit its polynomial")]
    polynomial = fitted_polynomial(calibration)
    return [
        Setting(
            "TeaCache",
            str(threshold),
            {"threshold": threshold, "polynomial": polynomial},
            partial(reuse_residual, threshold, polynomial),
        )
        for threshold in THRESHOLDS
    ]


def modulated_input(block: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    """The input of a block's first attention, before the block runs."""
    hidden = input_of(block, "hidden_states", args, kwargs)
    if hasattr(block, "scale_shift_table"):
        table = block.scale_shift_table[None] + input_of(block, "timestep", args, kwargs).reshape(len(hidden), 6, -1)
        shift, scale = table[:, :1], table[:, 1:2]
        return block.norm1(hidden) * (1 + scale) + shift
    return block.norm1(hidden, emb=kwargs["temb"])[0]


def relative_change(new: torch.Tensor, old: torch.Tensor) -> float:
    return float((new - old).abs().mean() / old.abs().mean())


def fitted_polynomial(calibration: Calibration) -> list[float]:
    """Coefficients, highest first, of the output's relative change by that of the modulated input."""
    transformer = calibration.generator.pipe.transformer
    inputs, outputs = [], []
    first = transformer.transformer_blocks[0]
    handles = [
        first.register_forward_pre_hook(
            lambda block, args, kwargs: inputs.append(modulated_input(block, args, kwargs)), with_kwargs=True
        ),
        transformer.norm_out.register_forward_pre_hook(lambda _, args: outputs.append(args[0])),
    ]
    try:
        calibration.run()
    finally:
        for handle in handles:
            handle.remove()
    return np.polyfit(changes(inputs, calibration.steps), changes(outputs, calibration.steps), DEGREE).tolist()


def changes(seen: Sequence[torch.Tensor], steps: int) -> list[float]:
    """Relative changes from step to step within each generation of `steps` steps."""
    pairs = enumerate(itertools.pairwise(seen), start=1)
    return [relative_change(new, old) for step, (old, new) in pairs if step % steps]


@contextmanager
def reuse_residual(threshold: float, polynomial: Sequence[float], pipe: Any) -> Iterator[None]:
    """Within the `with`, a pipeline's blocks run when the predicted change of the output reaches a threshold.

    Args:
        threshold: sum of relative changes from which the blocks run again.
        polynomial: as `fitted_polynomial` returns it.
        pipe: a diffusers pipeline whose transformer ends in `norm_out`.
    """
    first = pipe.transformer.transformer_blocks[0]
    change, runs = 0.0, True
    before = entered = residual = torch.empty(0)

    def decide(block: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal change, runs, before, entered
        step = pipe.scheduler.step_index or 0
        now, entered = modulated_input(block, args, kwargs), input_of(block, "hidden_states", args, kwargs)
        if step in (0, len(pipe.scheduler.timesteps) - 1):
            runs = True
        else:
            change += float(np.polyval(polynomial, relative_change(now, before)))
            runs = change >= threshold
        if runs:
            change = 0.0
        before = now

    def enter_last(features: torch.Tensor) -> torch.Tensor:
        nonlocal residual
        if not runs:
            return entered + residual
        residual = features - entered
        return features

    with skipping_blocks(pipe, lambda: runs, enter_last):
        handle = first.register_forward_pre_hook(decide, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()
