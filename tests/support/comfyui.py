"""Stand-ins of ComfyUI 0.3.64: what nodes and samplers do with a MODEL, by the names and signatures it has there."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Any
from uuid import uuid4

import torch


class ModelPatcher:
    """`comfy.model_patcher.ModelPatcher`: options are copied deeply at each clone, wrappers shallowly."""

    def __init__(self, model: Callable[..., torch.Tensor]) -> None:
        self.model = model
        self.model_options: dict[str, Any] = {"transformer_options": {}}
        self.wrappers: dict[str, dict[str, list[Callable[..., Any]]]] = {}

    def clone(self) -> ModelPatcher:
        n = self.__class__(self.model)
        n.model_options = copy.deepcopy(self.model_options)
        n.wrappers = {kind: {key: list(some) for key, some in of.items()} for kind, of in self.wrappers.items()}
        return n

    def set_model_unet_function_wrapper(self, unet_wrapper_function: Callable[..., torch.Tensor]) -> None:
        self.model_options["model_function_wrapper"] = unet_wrapper_function

    def set_model_sampler_post_cfg_function(
        self, post_cfg_function: Callable[..., torch.Tensor], disable_cfg1_optimization: bool = False
    ) -> None:
        functions = self.model_options.get("sampler_post_cfg_function", [])
        self.model_options["sampler_post_cfg_function"] = [*functions, post_cfg_function]

    def add_wrapper_with_key(self, wrapper_type: str, key: str, wrapper: Callable[..., Any]) -> None:
        self.wrappers.setdefault(wrapper_type, {}).setdefault(key, []).append(wrapper)

    def remove_wrappers_with_key(self, wrapper_type: str, key: str) -> None:
        self.wrappers.get(wrapper_type, {}).pop(key, None)


class Denoiser:
    """A model's `apply_model`: what a denoiser of images that are normally distributed around their prompt gives."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, int]] = []

    def __call__(
        self, x: torch.Tensor, t: torch.Tensor, c_crossattn: torch.Tensor, transformer_options: dict[str, Any]
    ) -> torch.Tensor:
        self.calls.append((float(t[0]), len(x)))
        sigma, context = (values.view(-1, *[1] * (x.ndim - 1)) for values in (t, c_crossattn.mean(dim=(1, 2))))
        return context + torch.sin(x - context) / (1 + sigma**2)


class Executor:
    """`comfy.patcher_extension.WrapperExecutor`, of one wrapper."""

    def __init__(self, original: Callable[..., Any]) -> None:
        self.original = original

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.original(*args, **kwargs)


class Sampling:
    """One run as `comfy.samplers.CFGGuider` makes it: conditionings get new ids, and all that fit go into one call.

    Args:
        patcher: a MODEL.
        positive, negative: conditionings (1, tokens, width); several of one kind are averaged.
        cfg: guidance scale; 1 leaves the negative ones out.
        apart: whether each conditioning is a call of its own, as where memory is short.
        with_ids: whether conditionings have ids, which they have not in releases before 2025.
    """

    def __init__(
        self,
        patcher: ModelPatcher,
        positive: list[torch.Tensor],
        negative: list[torch.Tensor],
        cfg: float = 5.0,
        apart: bool = False,
        with_ids: bool = True,
    ) -> None:
        self.patcher, self.cfg, self.apart, self.with_ids = patcher, cfg, apart, with_ids
        kinds = [(cond, 0) for cond in positive] + [(cond, 1) for cond in negative if cfg != 1.0]
        self.conds = [(cond, kind, uuid4()) for cond, kind in kinds]

    def run(
        self, noise: torch.Tensor, sigmas: torch.Tensor, sampler: Callable[..., torch.Tensor] | None = None
    ) -> torch.Tensor:
        run: Callable[..., torch.Tensor] = self._outer_sample
        for of in self.patcher.wrappers.get("outer_sample", {}).values():
            for wrapper in of:
                run = _wrapped(wrapper, run)
        with torch.inference_mode():
            return run(noise, torch.zeros_like(noise), sampler or euler, sigmas, None, None, True, 0)

    def _outer_sample(
        self,
        noise: torch.Tensor,
        latent_image: torch.Tensor,
        sampler: Callable[..., torch.Tensor],
        sigmas: torch.Tensor,
        denoise_mask: Any = None,
        callback: Any = None,
        disable_pbar: bool = False,
        seed: int | None = None,
    ) -> torch.Tensor:
        self.sigmas = sigmas
        return sampler(self.denoised, latent_image + noise * sigmas[0], sigmas)

    def denoised(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """`comfy.samplers.sampling_function`."""
        timestep = sigma.expand(len(x))
        options = self.patcher.model_options
        found: dict[int, list[torch.Tensor]] = {0: [], 1: []}
        for batch in [[cond] for cond in self.conds] if self.apart else [self.conds[::-1]]:
            transformer_options = dict(options["transformer_options"], sample_sigmas=self.sigmas, sigmas=timestep)
            transformer_options["cond_or_uncond"] = [kind for _, kind, _ in batch]
            if self.with_ids:
                transformer_options["uuids"] = [uuid for _, _, uuid in batch]
            context = torch.cat([cond.expand(len(x), -1, -1) for cond, _, _ in batch])
            c = {"c_crossattn": context, "transformer_options": transformer_options}
            args = {"input": torch.cat([x] * len(batch)), "timestep": torch.cat([timestep] * len(batch)), "c": c}
            args["cond_or_uncond"] = transformer_options["cond_or_uncond"]
            if "model_function_wrapper" in options:
                output = options["model_function_wrapper"](self.patcher.model, args)
            else:
                output = self.patcher.model(args["input"], args["timestep"], **c)
            for (_, kind, _), chunk in zip(batch, output.chunk(len(batch)), strict=True):
                found[kind].append(chunk)
        cond, *uncond = (torch.stack(chunks).mean(dim=0) for chunks in found.values() if chunks)
        result = uncond[0] + (cond - uncond[0]) * self.cfg if uncond else cond
        for function in options.get("sampler_post_cfg_function", []):
            result = function({"denoised": result, "sigma": timestep, "input": x, "model_options": options})
        return result


def euler(denoised: Callable[..., torch.Tensor], x: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    for sigma, following in pairwise(sigmas):
        x = x + (x - denoised(x, sigma)) / sigma * (following - sigma)
    return x


def heun(denoised: Callable[..., torch.Tensor], x: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    for sigma, following in pairwise(sigmas):
        slope = (x - denoised(x, sigma)) / sigma
        there = x + slope * (following - sigma)
        if following > 0:
            slope = (slope + (there - denoised(there, following)) / following) / 2
        x = x + slope * (following - sigma)
    return x


def _wrapped(wrapper: Callable[..., Any], run: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **kwargs: wrapper(Executor(run), *args, **kwargs)
