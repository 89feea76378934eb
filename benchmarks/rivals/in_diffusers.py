"""The caches of diffusers, set up as in its documentation.

PixArt lacks the mixin and the contexts that they need. So this module adds diffusers' `CacheMixin` to the
transformer's class, runs every denoiser call in a `cache_context` with step, timestep and sigma, and resets all states
at the start of a generation.
"""

from __future__ import annotations

import ast
import contextlib
import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from diffusers.hooks import (
    FasterCacheConfig,
    FirstBlockCacheConfig,
    MagCacheConfig,
    PyramidAttentionBroadcastConfig,
    SeaCacheConfig,
    TaylorSeerCacheConfig,
)
from diffusers.models.cache_utils import CacheMixin

from rivals.block_pairs import in_pairs, is_paired
from rivals.put_back import put_back
from rivals.setting import Calibration, Setting

Config = Callable[["Loop"], Any]

# Defaults of the configs, values of the guide (optimization/cache), and values around them. Timesteps: 0 to 1000.
PAB = {
    "spatial 2": {"spatial_attention_block_skip_range": 2},
    "spatial 2, cross 6": {"spatial_attention_block_skip_range": 2, "cross_attention_block_skip_range": 6},
    "spatial 2, cross 6, wide": {
        "spatial_attention_block_skip_range": 2,
        "cross_attention_block_skip_range": 6,
        "spatial_attention_timestep_skip_range": (0, 1000),
        "cross_attention_timestep_skip_range": (0, 1000),
    },
    "spatial 4, cross 6, wide": {
        "spatial_attention_block_skip_range": 4,
        "cross_attention_block_skip_range": 6,
        "spatial_attention_timestep_skip_range": (0, 1000),
        "cross_attention_timestep_skip_range": (0, 1000),
    },
}
FASTER = {
    "default": {},
    "guide": {"attention_weight": 0.3, "unconditional_batch_timestep_skip_range": (-1, 781)},
    "wide": {
        "attention_weight": 0.3,
        "unconditional_batch_timestep_skip_range": (-1, 1000),
        "spatial_attention_timestep_skip_range": (-1, 1000),
    },
}
# For models with temporal blocks. Latte's settings in PAB's repository; FasterCache reuses both kinds of attention.
VIDEO_PAB = {
    "spatial 2, temporal 3, cross 6": {
        "spatial_attention_block_skip_range": 2,
        "temporal_attention_block_skip_range": 3,
        "cross_attention_block_skip_range": 6,
        # The default also matches the names of temporal blocks.
        "spatial_attention_block_identifiers": ["^transformer_blocks"],
    },
}
VIDEO_FASTER = {"guide, temporal 2": {**FASTER["guide"], "temporal_attention_block_skip_range": 2}}
FIRST_BLOCK = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5)
# Interval, warm-up, lite mode; the guide recommends order 1.
TAYLOR = ((5, 3, False), (4, 2, False), (3, 3, False), (2, 2, False), (5, 3, True), (3, 3, True), (2, 2, True))
MAGNITUDE = ((0.02, 3, 0.2), (0.06, 3, 0.2), (0.12, 3, 0.2), (0.24, 4, 0.2), (0.5, 5, 0.1))
SEA = ((0.25, 1, 2), (0.2, 0, 2), (0.4, 1, 3), (0.5, 1, 3), (0.7, 1, 4), (1.0, 1, 5))


class Loop:
    """The state of a pipeline's denoising loop, read from its scheduler."""

    def __init__(self, pipe: Any) -> None:
        self._scheduler = pipe.scheduler

    @property
    def step(self) -> int:
        return self._scheduler.step_index or 0

    @property
    def rows(self) -> int:
        return len(self._scheduler.timesteps)

    @property
    def timestep(self) -> int:
        return int(self._scheduler.timesteps[self.step])

    @property
    def sigma(self) -> float:
        """The fraction of noise in the latents, 0 to 1, as in flow matching."""
        sigma = float(self._scheduler.sigmas[self.step])
        return sigma if "FlowMatch" in type(self._scheduler).__name__ else sigma / (1 + sigma)


@contextmanager
def diffusers_cache(config: Config, pipe: Any) -> Iterator[None]:
    """Run a pipeline with one of diffusers' caches.

    Args:
        config: makes the cache's config from the loop.
        pipe: a diffusers pipeline with a transformer.
    """
    transformer, loop, inside = pipe.transformer, Loop(pipe), contextlib.ExitStack()

    def before(*_: Any) -> None:
        if loop.step == 0:
            transformer._reset_stateful_cache()
        where = {"step_index": loop.step, "num_inference_steps": loop.rows}
        where |= {"timestep": loop.timestep, "sigma": loop.sigma}
        inside.enter_context(transformer.cache_context("cond_uncond", **where))

    with put_back(pipe):
        kind = type(transformer)
        if not isinstance(transformer, CacheMixin):
            transformer.__class__ = type(kind.__name__, (kind, CacheMixin), {})
        transformer.enable_cache(config(loop))
        watches = [
            transformer.register_forward_pre_hook(before),
            transformer.register_forward_hook(lambda *_: inside.close(), always_call=True),
        ]
        try:
            yield
        finally:
            for watch in watches:
                watch.remove()
            transformer.disable_cache()


@contextmanager
def stack_cache(config: Config, pipe: Any) -> Iterator[None]:
    """`diffusers_cache` for the caches that reuse the difference that all blocks make."""
    with in_pairs(pipe), diffusers_cache(config, pipe):
        yield


def all_of_diffusers(calibration: Calibration) -> list[Setting]:
    """All six caches at all settings."""
    guided, transformer = calibration.generator.architecture.guidance_pair, calibration.generator.pipe.transformer
    names = [name for name, _ in transformer.named_modules()]
    broadcast, faster_settings = (PAB | VIDEO_PAB, FASTER | VIDEO_FASTER) if is_paired(transformer) else (PAB, FASTER)
    found = [_setting("diffusers PAB", name, given, partial(pab, given)) for name, given in broadcast.items()]
    if guided:
        found += [
            _setting("diffusers FasterCache", name, given, partial(faster, given))
            for name, given in faster_settings.items()
        ]
    else:
        found.append(Setting("diffusers FasterCache", "all", unusable="no unconditional half to skip"))
    for threshold in FIRST_BLOCK:
        given = {"threshold": threshold}
        found.append(
            _setting("diffusers FirstBlockCache", str(threshold), given, partial(first_block, given), stack_cache)
        )
    for interval, warmup, lite in TAYLOR:
        given = {"cache_interval": interval, "disable_cache_before_step": warmup, "use_lite_mode": lite, "max_order": 1}
        if not lite:
            given["cache_identifiers"] = attention_and_feed_forward(names)
        name = f"interval {interval}, warm-up {warmup}{', lite' if lite else ''}"
        found.append(_setting("diffusers TaylorSeer", name, given, partial(taylor, given)))
    ratios = magnitudes(calibration)
    for threshold, most, retained in MAGNITUDE:
        given = {"threshold": threshold, "max_skip_steps": most, "retention_ratio": retained, "mag_ratios": ratios}
        given["num_inference_steps"] = calibration.steps
        name = f"{threshold}, {most} steps"
        found.append(_setting("diffusers MagCache", name, given, partial(magnitude, given), stack_cache))
    for threshold, order, most in SEA:
        given = {"threshold": threshold, "residual_order": order, "max_consecutive_cached": most}
        name = f"{threshold}, order {order}, {most} steps"
        found.append(_setting("diffusers SeaCache", name, given, partial(sea, given), stack_cache))
    return found


def _setting(
    rival: str, name: str, given: Mapping[str, Any], config: Config, applied: Callable[..., Any] = diffusers_cache
) -> Setting:
    return Setting(rival, name, given, partial(applied, config))


def pab(given: Mapping[str, Any], loop: Loop) -> Any:
    return PyramidAttentionBroadcastConfig(**given, current_timestep_callback=lambda: loop.timestep)


def faster(given: Mapping[str, Any], loop: Loop) -> Any:
    rest = {name: value for name, value in given.items() if name != "attention_weight"}
    weight = given.get("attention_weight", 0.5)
    return FasterCacheConfig(
        **rest,
        tensor_format="BCHW",
        attention_weight_callback=lambda _: weight,
        current_timestep_callback=lambda: loop.timestep,
    )


def first_block(given: Mapping[str, Any], _: Loop) -> Any:
    return FirstBlockCacheConfig(**given)


def taylor(given: Mapping[str, Any], _: Loop) -> Any:
    # The default of bfloat16 is for models in bfloat16.
    return TaylorSeerCacheConfig(**given, taylor_factors_dtype=torch.float32)


def attention_and_feed_forward(names: list[str]) -> list[str]:
    """Patterns of the modules that TaylorSeer's paper extrapolates; the defaults match no module named attn1 or ff."""
    ends = dict.fromkeys(name.split(".")[-1] for name in names if len(name.split(".")) == 3 and "blocks." in name)
    kept = [end for end in ends if end in ("attn", "attn1", "attn2", "ff", "ff_context", "proj_mlp", "proj_out")]
    return [rf"[a-z_]*blocks\.\d+\.{end}" for end in kept]


def magnitude(given: Mapping[str, Any], _: Loop) -> Any:
    return MagCacheConfig(**given)


def magnitudes(calibration: Calibration) -> list[float]:
    """Run MagCache's calibration, which prints the ratios."""
    config = MagCacheConfig(calibrate=True, num_inference_steps=calibration.steps)
    printed = io.StringIO()
    with stack_cache(lambda _: config, calibration.generator.pipe), contextlib.redirect_stdout(printed):
        calibration.run()
    return ast.literal_eval(printed.getvalue().strip().splitlines()[-1])


def sea(given: Mapping[str, Any], _: Loop) -> Any:
    def images(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor] | None:
        latents = args[0] if args else kwargs["hidden_states"]
        if latents.ndim == 5:
            return list(latents)
        # An image is a video of one frame. Packed latents (tokens, channels) are an image of one row.
        return [one.unsqueeze(1) if one.ndim == 3 else one.T[:, None, None] for one in latents]

    return SeaCacheConfig(**given, raw_vision_callback=images)
