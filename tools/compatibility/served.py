"""Tiny pipelines of real classes with weights that can be changed in place, for `stress.py`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from torch import nn

_TOKENS, _WIDTH, _POOLED = 5, 12, 6


class LowRank(nn.Module):
    """A linear layer with a LoRA."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer
        self.lora_down = nn.Linear(layer.in_features, 1, bias=False)
        self.lora_up = nn.Linear(1, layer.out_features, bias=False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.layer(hidden) + self.lora_up(self.lora_down(hidden))


@dataclass
class Served:
    """A pipeline and its kind."""

    pipe: Any
    kind: Kind

    def load(self, weights: int, lora: int) -> None:
        """Copy weights into the denoiser, like averaging (EMA) and swapping LoRAs."""
        for place, (name, value) in enumerate(self.pipe.transformer.named_parameters()):
            which = lora if "lora_" in name else weights
            drawn = torch.Generator().manual_seed(1000 * which + place)
            value.data.copy_(torch.randn(value.shape, generator=drawn) * 0.3)

    def sibling(self) -> Served:
        """Another pipeline with its own scheduler and the same denoiser."""
        scheduler = type(self.pipe.scheduler).from_config(self.pipe.scheduler.config)
        return Served(_pipeline(self.kind.pipeline, self.pipe.transformer, scheduler), self.kind)

    def image(
        self, prompt: int, size: int, steps: int, seed: int, after_row: Callable[[Any, int], None]
    ) -> torch.Tensor:
        """Generate latents; `after_row` is called with the pipeline and each finished row."""
        call = {**self.kind.call(prompt), "height": size, "width": size, "num_inference_steps": steps}
        if self.kind.has_flag:

            def callback(pipe: Any, row: int, *_: Any) -> dict[str, Any]:
                after_row(pipe, row)
                return {}

            call["callback_on_step_end"] = callback
        else:
            call |= {"callback": lambda row, *_: after_row(self.pipe, row), "callback_steps": 1}
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            return torch.as_tensor(self.pipe(**call, generator=generator, output_type="latent", return_dict=False)[0])


@dataclass(frozen=True)
class Kind:
    """One way in which a pipeline calls its denoiser.

    Attributes:
        pipeline: pipeline class of diffusers.
        model: class and configuration of the denoiser.
        scheduler: class of the scheduler.
        sizes: image sizes in pixels.
        call: index of a prompt -> arguments of the call.
        has_flag: whether the pipeline can be interrupted by `_interrupt`; otherwise it has the older callback.
        adapted: names of the linear layers with a LoRA.
    """

    pipeline: str
    model: tuple[str, dict[str, Any]]
    scheduler: type
    sizes: tuple[int, ...]
    call: Callable[[int], dict[str, Any]]
    has_flag: bool
    adapted: str

    def make(self) -> Served:
        """A fresh pipeline with weights 0 and LoRA 0."""
        name, config = self.model
        model = getattr(diffusers, name)(**config).eval()
        for path, module in list(model.named_modules()):
            if isinstance(module, nn.Linear) and path.endswith("." + self.adapted):
                above, _, leaf = path.rpartition(".")
                setattr(model.get_submodule(above), leaf, LowRank(module))
        served = Served(_pipeline(self.pipeline, model, self.scheduler()), self)
        served.load(0, 0)
        return served


def _pipeline(name: str, model: nn.Module, scheduler: Any) -> Any:
    cls = getattr(diffusers, name)
    needed = [key for key, part in inspect.signature(cls.__init__).parameters.items() if part.default is part.empty]
    pipe = cls(**dict.fromkeys(needed[1:]) | {"transformer": model, "scheduler": scheduler})
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _text(prompt: int, prefixes: tuple[str, ...], pooled: bool = False, mask: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number, prefix in enumerate(prefixes):
        seed = 10 * prompt + number
        found[prefix + "prompt_embeds"] = _noise(seed, 1, _TOKENS, _WIDTH)
        if pooled:
            found[prefix + "pooled_prompt_embeds"] = _noise(seed, 1, _POOLED)
        if mask:
            found[prefix + "prompt_attention_mask"] = torch.ones(1, _TOKENS)
    return found


_BOTH = ("", "negative_")
_SMALL = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2}
_FLUX = (
    "FluxTransformer2DModel",
    {
        **_SMALL,
        "in_channels": 16,
        "num_single_layers": 2,
        "joint_attention_dim": _WIDTH,
        "pooled_projection_dim": _POOLED,
        "guidance_embeds": True,
        "axes_dims_rope": (2, 2, 4),
    },
)
_PIXART = (
    "PixArtTransformer2DModel",
    {
        **_SMALL,
        "in_channels": 4,
        "out_channels": 8,
        "cross_attention_dim": 16,
        "caption_channels": _WIDTH,
        "sample_size": 8,
        "norm_num_groups": 1,
        "use_additional_conditions": False,
    },
)
_WAN = (
    "WanTransformer3DModel",
    {
        **_SMALL,
        "attention_head_dim": 12,
        "ffn_dim": 16,
        "text_dim": _WIDTH,
        "freq_dim": 16,
        "in_channels": 4,
        "out_channels": 4,
    },
)
_FLOW = diffusers.FlowMatchEulerDiscreteScheduler

KINDS = {
    "PixArt, one batch": Kind(
        "PixArtAlphaPipeline",
        _PIXART,
        diffusers.DPMSolverMultistepScheduler,
        (64, 96),
        lambda prompt: {**_text(prompt, _BOTH, mask=True), "negative_prompt": None, "use_resolution_binning": False},
        has_flag=False,
        adapted="to_q",
    ),
    "FLUX": Kind(
        "FluxPipeline", _FLUX, _FLOW, (64, 96), lambda prompt: _text(prompt, ("",), pooled=True), True, "proj_mlp"
    ),
    "FLUX, two passes": Kind(
        "FluxPipeline",
        _FLUX,
        _FLOW,
        (64, 96),
        lambda prompt: {**_text(prompt, _BOTH, pooled=True), "true_cfg_scale": 3.0},
        True,
        "to_v",
    ),
    "Wan, named passes": Kind(
        "WanPipeline",
        _WAN,
        diffusers.UniPCMultistepScheduler,
        (32, 64),
        lambda prompt: {**_text(prompt, _BOTH), "num_frames": 5},
        True,
        "to_q",
    ),
}
