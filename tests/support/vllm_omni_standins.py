"""Stand-ins of vLLM-Omni 0.30.0's modules, with the names and signatures that they have there."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, fields
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn


@dataclass
class DiffusionCacheConfig:
    """`vllm_omni.diffusion.data.DiffusionCacheConfig`, with one of its own parameters."""

    rel_l1_thresh: float | None = None
    _extra_params: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> DiffusionCacheConfig:
        own = {one.name for one in fields(cls)}
        known = {key: value for key, value in data.items() if key in own and not key.startswith("_")}
        return cls(**known, _extra_params={key: value for key, value in data.items() if key not in own})

    def __getattr__(self, item: str) -> Any:
        if item == "_extra_params" or item.startswith("_"):
            return object.__getattribute__(self, item)
        extra = object.__getattribute__(self, "_extra_params")
        if item in extra:
            return extra[item]
        raise AttributeError(f"'{self.__class__.__name__}' object has no attribute '{item}'")


def get_cache_backend(cache_backend: str | None, cache_config: Any) -> Any:
    """`vllm_omni.diffusion.cache.selector.get_cache_backend`."""
    if cache_backend is None or cache_backend == "none":
        return None
    raise ValueError(f"Unsupported cache backend: {cache_backend}. Supported: 'cache_dit', 'tea_cache'")


def install(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Put the modules where they are imported from; gives the runner's."""
    data, selector = ModuleType("vllm_omni.diffusion.data"), ModuleType("vllm_omni.diffusion.cache.selector")
    runner = ModuleType("vllm_omni.diffusion.worker.diffusion_model_runner")
    data.DiffusionCacheConfig = DiffusionCacheConfig  # type: ignore[attr-defined]
    selector.get_cache_backend = runner.get_cache_backend = get_cache_backend  # type: ignore[attr-defined]
    for name in ("vllm_omni", "vllm_omni.diffusion", "vllm_omni.diffusion.cache", "vllm_omni.diffusion.worker"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    for module in (data, selector, runner):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return runner


class Pipeline(nn.Module):
    """One of vLLM-Omni's own pipelines: a module, with guidance as two calls a step (`predict_noise_maybe_with_cfg`).

    Args:
        transformer: called with `hidden_states`, `timestep` and `encoder_hidden_states`.
        scheduler: of diffusers.
    """

    def __init__(self, transformer: nn.Module, scheduler: Any) -> None:
        super().__init__()
        self.transformer, self.scheduler = transformer, scheduler

    def forward(self, latents: torch.Tensor, prompt: torch.Tensor, negative: torch.Tensor, steps: int) -> torch.Tensor:
        self.scheduler.set_timesteps(steps)
        with torch.no_grad():
            for t in self.scheduler.timesteps:
                given = {"hidden_states": latents, "timestep": t.expand(len(latents)) / 1000}
                positive = self.transformer(**given, encoder_hidden_states=prompt)[0]
                other = self.transformer(**given, encoder_hidden_states=negative)[0]
                latents = self.scheduler.step(other + 4.0 * (positive - other), t, latents, return_dict=False)[0]
        return latents


class Transformer(nn.Module):
    """A denoiser of layers that nobody else has; counts its forwards."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.forwards = nn.Linear(8, 8), 0

    def forward(
        self, hidden_states: torch.Tensor, timestep: torch.Tensor, encoder_hidden_states: torch.Tensor
    ) -> tuple[torch.Tensor]:
        self.forwards += 1
        return (torch.tanh(self.mix(hidden_states) + encoder_hidden_states) * (1 + timestep[:, None]),)
