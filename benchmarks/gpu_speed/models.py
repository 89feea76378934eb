"""The measured architectures, full or tiny, with random weights, and their sampling loop.

Text encoders and VAEs are left out, because schedules do not affect them. The loop is that of diffusers' pipelines
without their other parts, so that a checkout with torch, diffusers, numpy and pydantic is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import diffusers
import torch
from torch import nn

from ecad.cost import find_architecture

Inputs = dict[str, Any]


@dataclass(frozen=True)
class Model:
    """A denoiser and the size at which it is measured.

    Args:
        name: name on the command line.
        transformer: class of diffusers.
        config: arguments of the full model.
        tiny: arguments that differ in the tiny twin.
        latent: shape of one sample's latents; `tiny_latent` in the tiny twin.
        text_tokens: length of the text sequence.
        conditions: (config, latents, text, pooled text) -> the constant keyword arguments of a forward.
        scheduler: class of diffusers.
        passes: forwards in each row.
        pair: whether a forward takes the guidance pair as a batch of two.
        unit_timestep: whether a forward takes timesteps from 0 to 1.
        published: folder of its published schedules; None if there are none.
        published_ratios: MACs without a cache over MACs of the published `ours_fast` and `ours_faster`.
        goal: target fraction of the theoretical speed-up.
    """

    name: str
    transformer: str
    config: Mapping[str, Any]
    tiny: Mapping[str, Any]
    latent: tuple[int, ...]
    tiny_latent: tuple[int, ...]
    text_tokens: int
    conditions: Callable[..., Inputs]
    scheduler: str = "FlowMatchEulerDiscreteScheduler"
    passes: tuple[str, ...] = ("cond_uncond",)
    pair: bool = True
    unit_timestep: bool = False
    published: str | None = None
    published_ratios: tuple[float, float] = (2.0, 3.0)
    goal: float = 0.95

    def settings(self, tiny: bool) -> dict[str, Any]:
        """Arguments of the transformer's class."""
        config = {key: value for key, value in self.config.items() if not key.startswith("_")}
        return config | dict(self.tiny) if tiny else config


@dataclass
class Loop:
    """A model on a device with its sampling loop: a pipeline without text encoder and VAE.

    Args:
        model: the architecture.
        transformer: the denoiser.
        scheduler: a scheduler of diffusers.
        dtype: dtype of latents and text.
        batch: batch size.
        steps: number of rows.
        tiny: whether it is the tiny twin.
        before_row: called before each row; a rival may set it.
    """

    model: Model
    transformer: nn.Module
    scheduler: Any
    dtype: torch.dtype
    batch: int
    steps: int
    tiny: bool
    latents: torch.Tensor = field(init=False, repr=False)
    before_row: Callable[[int], None] | None = field(default=None, init=False, repr=False)
    _conditions: dict[str, Inputs] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        device = next(self.transformer.parameters()).device
        shape = self.model.tiny_latent if self.tiny else self.model.latent
        generator = None if device.type == "meta" else torch.Generator(device).manual_seed(0)
        made: dict[str, Any] = {"generator": generator, "device": device, "dtype": self.dtype}
        rows, config = self.batch * (2 if self.model.pair else 1), self.model.settings(self.tiny)
        width = next(value for key in _TEXT_WIDTHS if (value := config.get(key)))
        self.latents = torch.randn(self.batch, *shape, **made)
        tokens, pooled = 8 if self.tiny else self.model.text_tokens, config.get("pooled_projection_dim", 1)
        for name in self.model.passes:
            text = torch.randn(rows, tokens, width, **made), torch.randn(rows, pooled, **made)
            self._conditions[name] = self.model.conditions(config, self.latents, *text) | {"return_dict": False}

    def inputs(self, name: str, latents: torch.Tensor, timestep: torch.Tensor) -> Inputs:
        """Keyword arguments of one forward.

        Args:
            name: name of the pass.
            latents: latents of the batch.
            timestep: timestep of the row.
        """
        batched = torch.cat([latents, latents]) if self.model.pair else latents
        times = timestep.to(batched.device).expand(len(batched))
        if self.model.unit_timestep:
            times = times.to(self.dtype) / 1000
        return {"hidden_states": batched, "timestep": times, **self._conditions[name]}

    def __call__(
        self, around: Callable[[int], AbstractContextManager[Any]] = lambda row: nullcontext()
    ) -> torch.Tensor:
        """Sample one batch.

        Args:
            around: a context for each row's forwards.

        Returns:
            the last latents.
        """
        latents = self.latents
        with torch.no_grad():
            self.scheduler.set_timesteps(self.steps, device=latents.device)
            self.scheduler.set_begin_index(0)
            for row, timestep in enumerate(self.scheduler.timesteps):
                if self.before_row is not None:
                    self.before_row(row)
                with around(row):
                    predicted = [self._forward(name, row, latents, timestep) for name in self.model.passes]
                latents = self.scheduler.step(self._guided(predicted), timestep, latents, return_dict=False)[0]
        return latents

    def _forward(self, name: str, row: int, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        context = getattr(self.transformer, "cache_context", None)
        where = nullcontext() if context is None else context(name, step_index=row, num_inference_steps=self.steps)
        with where:
            return self.transformer(**self.inputs(name, latents, timestep))[0]

    def _guided(self, predicted: list[torch.Tensor]) -> torch.Tensor:
        first, *others = predicted[0].chunk(2) if self.model.pair else predicted
        guided = first + 4.5 * (others[0] - first) if others else first
        return guided.chunk(2, dim=1)[0] if guided.shape[1] == 2 * self.latents.shape[1] else guided


# Fields of configurations with the width of the text embeddings.
_TEXT_WIDTHS = ("caption_channels", "joint_attention_dim", "text_dim")


def make_loop(
    model: Model, device: str, dtype: torch.dtype, batch: int = 1, steps: int = 12, tiny: bool = False
) -> Loop:
    """A model with random weights.

    Args:
        model: the architecture.
        device: device of the weights; "meta" computes nothing.
        dtype: dtype of the weights.
        batch: as for `Loop`.
        steps: as for `Loop`.\n        tiny: as for `Loop`.
    """
    with torch.device("meta"):
        transformer = getattr(diffusers, model.transformer)(**model.settings(tiny))
    exact = set(transformer._keep_in_fp32_modules or ())
    saved = transformer.state_dict(keep_vars=True)
    for name, tensor in saved.items():
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(torch.float32 if exact.intersection(name.split(".")) else dtype)
    transformer.to_empty(device=device).eval().requires_grad_(False)
    if device != "meta":
        generator = torch.Generator(device).manual_seed(0)
        for tensor in (*transformer.parameters(), *transformer.buffers()):
            tensor.normal_(0.0, 0.02, generator=generator)
    scheduler = getattr(diffusers, model.scheduler)()
    return Loop(model, transformer, scheduler, dtype, batch, steps, tiny)


def _pixart(config: Inputs, latents: torch.Tensor, text: torch.Tensor, pooled: torch.Tensor) -> Inputs:
    size = torch.full((len(text), 2), 1024.0, dtype=text.dtype, device=text.device)
    conditions = {"resolution": size, "aspect_ratio": size[:, :1] / 1024} if config["sample_size"] == 128 else {}
    return {
        "encoder_hidden_states": text,
        "encoder_attention_mask": torch.ones_like(text[..., 0]),
        "added_cond_kwargs": {"resolution": None, "aspect_ratio": None} | conditions,
    }


def _flux(config: Inputs, latents: torch.Tensor, text: torch.Tensor, pooled: torch.Tensor) -> Inputs:
    side = round(latents.shape[1] ** 0.5)
    axis = torch.arange(side, device=text.device, dtype=text.dtype)
    grid = torch.stack([torch.zeros(side, side).to(axis), *torch.meshgrid(axis, axis, indexing="ij")], dim=-1)
    return {
        "encoder_hidden_states": text,
        "pooled_projections": pooled,
        "guidance": torch.full((len(text),), 5.0, device=text.device),
        "txt_ids": torch.zeros(text.shape[1], 3, device=text.device, dtype=text.dtype),
        "img_ids": grid.reshape(-1, 3),
    }


def _sd3(config: Inputs, latents: torch.Tensor, text: torch.Tensor, pooled: torch.Tensor) -> Inputs:
    return {"encoder_hidden_states": text, "pooled_projections": pooled}


def _wan(config: Inputs, latents: torch.Tensor, text: torch.Tensor, pooled: torch.Tensor) -> Inputs:
    return {"encoder_hidden_states": text}


_SMALL = {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2}
_PIXART = find_architecture("PixArtAlphaImageGenerator", 256, 256).transformer
_PIXART_1024 = find_architecture("PixArtAlphaImageGenerator", 1024, 1024).transformer
_TINY_PIXART = {**_SMALL, "attention_head_dim": 24, "cross_attention_dim": 48, "caption_channels": 24}
_FLUX = find_architecture("FluxImageGenerator").transformer
_TINY_FLUX = {**_SMALL, "num_single_layers": 2, "in_channels": 16, "joint_attention_dim": 24}
_TINY_FLUX |= {"pooled_projection_dim": 12, "axes_dims_rope": (4, 6, 6)}
# stabilityai/stable-diffusion-3.5-medium and Wan-AI/Wan2.1-T2V-1.3B-Diffusers, transformer/config.json
_SD35 = {
    "sample_size": 128,
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
    "num_layers": 24,
    "attention_head_dim": 64,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 384,
    "dual_attention_layers": tuple(range(13)),
    "qk_norm": "rms_norm",
}
_TINY_SD35 = {**_SMALL, "sample_size": 16, "joint_attention_dim": 24, "caption_projection_dim": 32}
_TINY_SD35 |= {"pooled_projection_dim": 12, "pos_embed_max_size": 16, "dual_attention_layers": (0,)}
_WAN = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 12,
    "attention_head_dim": 128,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 4096,
    "freq_dim": 256,
    "ffn_dim": 8960,
    "num_layers": 30,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "eps": 1e-6,
    "rope_max_seq_len": 1024,
}
_TINY_WAN = {**_SMALL, "text_dim": 24, "freq_dim": 16, "ffn_dim": 32, "in_channels": 4, "out_channels": 4}

_FOR_PIXART = {
    "scheduler": "DPMSolverMultistepScheduler",
    "conditions": _pixart,
    "transformer": "PixArtTransformer2DModel",
}
_FOR_PIXART |= {"text_tokens": 120, "tiny_latent": (4, 16, 16)}
_FOR_FLUX = {"transformer": "FluxTransformer2DModel", "conditions": _flux, "text_tokens": 512, "pair": False}
_FOR_FLUX |= {"unit_timestep": True, "tiny": _TINY_FLUX, "tiny_latent": (16, 16), "published": "flux_256"}
_FOR_WAN = {"transformer": "WanTransformer3DModel", "conditions": _wan, "text_tokens": 512, "pair": False}
_FOR_WAN |= {"passes": ("cond", "uncond"), "tiny": _TINY_WAN, "tiny_latent": (4, 2, 8, 8), "config": _WAN}

# Published ratios: docs/papers-tables.md for PixArt, 3.15 for FLUX.
MODELS: dict[str, Model] = {
    model.name: model
    for model in (
        Model(
            "pixart-256",
            config=_PIXART,
            tiny={**_TINY_PIXART, "sample_size": 16},
            latent=(4, 32, 32),
            published="pixart_alpha_256",
            published_ratios=(2.68, 4.86),
            goal=0.90,
            **_FOR_PIXART,  # type: ignore[arg-type]
        ),
        Model("flux-256", config=_FLUX, latent=(256, 64), goal=0.90, published_ratios=(3.15, 3.9), **_FOR_FLUX),
        Model("flux-1024", config=_FLUX, latent=(4096, 64), published_ratios=(3.15, 3.9), **_FOR_FLUX),
        Model(
            "pixart-1024",
            config=_PIXART_1024,
            tiny=_TINY_PIXART,
            latent=(4, 128, 128),
            published="pixart_alpha_256",
            published_ratios=(2.68, 4.86),
            **_FOR_PIXART,
        ),
        Model(
            "sd35-medium-1024",
            "SD3Transformer2DModel",
            _SD35,
            _TINY_SD35,
            (16, 128, 128),
            (16, 8, 8),
            333,
            _sd3,
        ),
        Model("wan-1.3b-33", latent=(16, 9, 60, 104), **_FOR_WAN),
        Model("wan-1.3b-81", latent=(16, 21, 60, 104), **_FOR_WAN),
    )
}
