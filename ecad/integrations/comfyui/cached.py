"""Runs the whole steps of a schedule on any MODEL of ComfyUI, with any sampler, by the noise level of each call.

A step that computes is left alone, so a schedule that computes everything gives the same image to the last bit. In a
step that does not, each conditioning's output is forecast from its own last outputs. A conditioning is known by its
id, its kind (positive, negative), its shape and its window of frames; one that has not been computed yet is computed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import NamedTuple

import torch

from ecad.errors import ScheduleError
from ecad.integrations.comfyui.model import ApplyModel, Model, UnetArgs, UnetWrapper, on_each_run, prediction_of
from ecad.schedules import CacheSchedule
from ecad.schedules.by_sigma import StepsBySigma, by_sigma, sigmas_of
from ecad.schedules.forecast import Ahead
from ecad.schedules.output_weights import MAX_OUTPUTS

KEY = "ecad"
# Samplers round a noise level on its way to the denoiser.
_ROUNDING = 1e-4


def cached_model(model: Model, schedule: CacheSchedule) -> Model:
    """A copy of a MODEL that runs under a schedule; the model itself stays as it is.

    Args:
        model: a MODEL; a wrapper that another node set around its calls goes on working, a schedule of before is
            replaced.
        schedule: whose whole steps run.

    Raises:
        ScheduleError: what it says of its noise levels or its outputs is malformed.
    """
    sigmas_of(schedule)
    patched = model.clone()
    wrapped = patched.model_options.get("model_function_wrapper")
    if isinstance(wrapped, CachedCalls):
        wrapped = wrapped.wrapped
    calls = CachedCalls(schedule, wrapped)
    patched.set_model_unet_function_wrapper(calls)
    on_each_run(patched, KEY, calls.run)
    return patched


class _Output(NamedTuple):
    sigma: float
    value: torch.Tensor


class CachedCalls:
    """The calls of one model: what they gave at the last noise levels that computed, the newest first, one list a
    conditioning.

    Args:
        schedule: whose whole steps run.
        wrapped: another wrapper around the calls.
    """

    def __init__(self, schedule: CacheSchedule, wrapped: UnetWrapper | None) -> None:
        self.schedule, self.wrapped = schedule, wrapped
        self.computed = self.forecast = 0
        self._prediction = prediction_of(schedule)
        self._outputs: dict[Hashable, list[_Output]] = {}
        self._steps: StepsBySigma | None = None
        self._sample_sigmas: torch.Tensor | None = None
        self._last_sigma = 0.0

    def __deepcopy__(self, memo: object) -> CachedCalls:
        # ComfyUI copies a model's options at every node. Only one copy runs at a time, and each run begins anew.
        return self

    def run(self, executor: Callable[..., object], *args: object, **kwargs: object) -> object:
        """One run of a sampler, seen from around: nothing is known at its beginning, nothing is kept after it."""
        self._forget()
        self.computed = self.forecast = 0
        try:
            return executor(*args, **kwargs)
        finally:
            self._forget()
            logging.info("ecad: %s: %d calls computed, %d forecast", self.schedule.name, self.computed, self.forecast)

    def __call__(self, apply_model: ApplyModel, args: UnetArgs) -> torch.Tensor:
        """The model function wrapper."""
        levels = args["timestep"].flatten().tolist()
        sigma = levels[0]
        if not sigma > 0 or set(levels) != {sigma} or torch.is_grad_enabled():
            return self._compute(apply_model, args)
        steps = self._steps_of(sigma, args)
        keys = _conditionings(args)
        if steps is None or len(set(keys)) < len(keys):
            return self._compute(apply_model, args)
        if not steps.computes(sigma) and all(key in self._outputs for key in keys):
            self.forecast += 1
            return self._given(steps, sigma, keys, args["input"])
        denoised = self._compute(apply_model, args)
        if denoised.shape != args["input"].shape or not steps.keeps(sigma):
            return denoised
        self._keep(sigma, keys, self._prediction.output(args["input"], denoised, sigma))
        stands_for_itself = all(self._ahead(steps, sigma, key) == Ahead() for key in keys)
        return denoised if stands_for_itself else self._given(steps, sigma, keys, args["input"])

    def _compute(self, apply_model: ApplyModel, args: UnetArgs) -> torch.Tensor:
        self.computed += 1
        if self.wrapped is not None:
            return self.wrapped(apply_model, args)
        return apply_model(args["input"], args["timestep"], **args["c"])

    def _given(self, steps: StepsBySigma, sigma: float, keys: list[Hashable], latents: torch.Tensor) -> torch.Tensor:
        """What the sampler is given: denoised latents, made of computed outputs."""
        found = []
        for key, chunk in zip(keys, latents.chunk(len(keys)), strict=True):
            ahead, outputs = self._ahead(steps, sigma, key), [output.value for output in self._outputs[key]]
            value = outputs[0] * ahead.scale
            for weight, newer, older in zip((ahead.slope, ahead.bend), outputs, outputs[1:], strict=False):
                if weight is not None:
                    value = torch.add(value, newer - older, alpha=weight)
            found.append(self._prediction.denoised(chunk, value, sigma))
        return torch.cat(found)

    def _ahead(self, steps: StepsBySigma, sigma: float, key: Hashable) -> Ahead:
        return steps.ahead(sigma, [output.sigma for output in self._outputs[key]])

    def _keep(self, sigma: float, keys: list[Hashable], outputs: torch.Tensor) -> None:
        for key, value in zip(keys, outputs.chunk(len(keys)), strict=True):
            others = [output for output in self._outputs.get(key, []) if output.sigma != sigma]
            self._outputs[key] = [_Output(sigma, value), *others][:MAX_OUTPUTS]

    def _steps_of(self, sigma: float, args: UnetArgs) -> StepsBySigma | None:
        """What the run that this call belongs to computes; None if its noise levels are not known or do not descend."""
        told = args["c"].get("transformer_options", {}).get("sample_sigmas")
        if self._is_new_run(sigma, told):
            self._forget()
            self._sample_sigmas = told
            self._steps = _steps(self.schedule, told)
        self._last_sigma = sigma
        return self._steps

    def _is_new_run(self, sigma: float, told: torch.Tensor | None) -> bool:
        rises = sigma > self._last_sigma * (1 + _ROUNDING)
        if self._last_sigma == 0 or told is not self._sample_sigmas:
            return True
        # Samplers that look ahead or add noise go back a little; only a new run goes back to the first row.
        steps = self._steps
        return rises and (told is None or steps is None or (steps.row(sigma) == 0 < steps.row(self._last_sigma)))

    def _forget(self) -> None:
        self._outputs = {}
        self._steps = self._sample_sigmas = None
        self._last_sigma = 0.0


def _steps(schedule: CacheSchedule, told: torch.Tensor | None) -> StepsBySigma | None:
    sigmas = None if told is None else told.tolist()
    if sigmas is None and (own := sigmas_of(schedule)) is not None:
        sigmas = [*own, 0.0]
    try:
        return None if sigmas is None else by_sigma(schedule, sigmas)
    except ScheduleError as error:
        logging.warning("ecad: this run computes everything: %s", error)
        return None


def _conditionings(args: UnetArgs) -> list[Hashable]:
    """What tells the chunks of a call apart, and is the same in the next step."""
    kinds, latents, options = args["cond_or_uncond"], args["input"], args["c"].get("transformer_options", {})
    uuids = options.get("uuids") or [None] * len(kinds)
    window = options.get("context_window")
    frames = tuple(getattr(window, "index_list", ())) if window is not None else None
    shape = (len(latents) // len(kinds), *latents.shape[1:], latents.device)
    return [(kind, uuid, shape, frames) for kind, uuid in zip(kinds, uuids, strict=True)]
