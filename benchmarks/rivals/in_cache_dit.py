"""cache-dit: dual block caching, with TaylorSeer and with step masks, using its own adapter for the pipeline."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from rivals.block_pairs import in_pairs, is_paired
from rivals.put_back import put_back
from rivals.setting import Calibration, Setting

os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "ERROR")

# First blocks, warm-up steps, threshold. 8, 8, 0.08 are the defaults (for 28 steps). The others are from the guide and
# from projects that use cache-dit (vLLM-Omni: 1, 4, 0.12).
DUAL_BLOCK = (
    (8, 8, 0.08),
    (1, 4, 0.12),
    (1, 4, 0.14),
    (1, 4, 0.16),
    (1, 4, 0.2),
    (1, 2, 0.2),
    (1, 2, 0.35),
    (1, 2, 0.6),
)
# Policy -> threshold, as in the guide's examples.
MASKS = {"slow": 0.15, "medium": 0.2, "fast": 0.2, "ultra": 0.3}


def all_of_cache_dit(calibration: Calibration) -> list[Setting]:
    """DBCache; DBCache with TaylorSeer; dynamic step masks (SCM) with TaylorSeer, as the guide recommends."""
    if importlib.util.find_spec("cache_dit") is None:
        reason = "cache-dit is not installed: pip install -c constraints.txt -e '.[peers]'"
        return [Setting("cache-dit DBCache", "all", unusable=reason)]
    import cache_dit

    steps, blocks = calibration.steps, len(calibration.generator.pipe.transformer.transformer_blocks)
    found = []
    for first, warmup, threshold in DUAL_BLOCK:
        given = {"Fn_compute_blocks": min(first, blocks - 1), "Bn_compute_blocks": 0}
        given |= {"max_warmup_steps": max(1, round(warmup * steps / 20)), "residual_diff_threshold": threshold}
        name = f"F{given['Fn_compute_blocks']}B0 W{given['max_warmup_steps']} {threshold}"
        found.append(Setting("cache-dit DBCache", name, given, partial(dual_block, given, 0)))
        if first == 1:
            found.append(
                Setting("cache-dit DBCache + TaylorSeer", name, {**given, "order": 1}, partial(dual_block, given, 1))
            )
    if steps < 8 and steps not in (4, 6):
        return [*found, Setting("cache-dit SCM", "all", unusable=f"has no masks for {steps} steps")]
    masks = {policy: cache_dit.steps_mask(total_steps=steps, mask_policy=policy) for policy in MASKS}
    for policy, mask in masks.items():
        given = {"Fn_compute_blocks": 1, "Bn_compute_blocks": 0, "residual_diff_threshold": MASKS[policy]}
        given |= {"steps_computation_mask": mask, "steps_computation_policy": "dynamic"}
        found.append(Setting("cache-dit SCM", policy, {**given, "order": 1}, partial(dual_block, given, 1)))
    return found


@contextmanager
def dual_block(given: dict[str, Any], order: int, pipe: Any) -> Iterator[None]:
    """Run a pipeline with DBCache.

    Args:
        given: fields of its config.
        order: order of TaylorSeer; 0 reuses outputs.
        pipe: a pipeline that cache-dit has an adapter for, or one whose transformer has temporal blocks.
    """
    import cache_dit

    with in_pairs(pipe), put_back(pipe):
        adapter = pairs_adapter(pipe) if is_paired(pipe.transformer) else cache_dit.get_adapter(pipe)
        calibrator = cache_dit.TaylorSeerCalibratorConfig(taylorseer_order=order) if order else None
        cached = cache_dit.enable_cache(
            adapter, cache_config=cache_dit.DBCacheConfig(**given), calibrator_config=calibrator
        )
        try:
            yield
        finally:
            cache_dit.disable_cache(cached)


def pairs_adapter(pipe: Any) -> Any:
    """The adapter that cache-dit's guide has one write for a pipeline that it does not know."""
    import cache_dit

    blocks = pipe.transformer.transformer_blocks
    return cache_dit.BlockAdapter(
        pipe=pipe,
        transformer=pipe.transformer,
        blocks=blocks,
        forward_pattern=cache_dit.ForwardPattern.Pattern_3,
    )
