"""What of ComfyUI's interfaces the nodes rely on, as types: ModelPatcher, and the arguments of its wrappers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypedDict

import torch

from ecad.errors import ScheduleError
from ecad.schedules import CacheSchedule


class UnetArgs(TypedDict):
    """The second argument of a model function wrapper.

    Attributes:
        input: the latents, one chunk a conditioning.
        timestep: float (batch,), the noise level sigma.
        c: keyword arguments of `apply_model`; under `transformer_options`, the run's `sample_sigmas` and, one a chunk,
            the conditionings' `uuids`.
        cond_or_uncond: 0 or 1, one a chunk.
    """

    input: torch.Tensor
    timestep: torch.Tensor
    c: dict[str, Any]
    cond_or_uncond: list[int]


ApplyModel = Callable[..., torch.Tensor]
UnetWrapper = Callable[[ApplyModel, UnetArgs], torch.Tensor]


class Model(Protocol):
    """What travels along a MODEL wire: `comfy.model_patcher.ModelPatcher`."""

    model_options: dict[str, Any]

    def clone(self) -> Model: ...

    def set_model_unet_function_wrapper(self, unet_wrapper_function: UnetWrapper) -> None: ...

    def set_model_sampler_post_cfg_function(
        self, post_cfg_function: Callable[[dict[str, object]], torch.Tensor], disable_cfg1_optimization: bool = False
    ) -> None: ...

    def add_wrapper_with_key(self, wrapper_type: str, key: str, wrapper: Callable[..., object]) -> None: ...

    def remove_wrappers_with_key(self, wrapper_type: str, key: str) -> None: ...


# Of `comfy.patcher_extension.WrappersMP`: around one run of a sampler.
OUTER_SAMPLE = "outer_sample"


def on_each_run(model: Model, key: str, wrapper: Callable[..., object]) -> None:
    """Have each run of a sampler with this model go through a wrapper; replaces the one with the same key."""
    model.remove_wrappers_with_key(OUTER_SAMPLE, key)
    model.add_wrapper_with_key(OUTER_SAMPLE, key, wrapper)


class Prediction(NamedTuple):
    """What a schedule's output products are products of, in terms of what ComfyUI gives.

    Attributes:
        output: (latents, denoised latents, sigma) -> the model's output.
        denoised: (latents, output, sigma) -> denoised latents.
    """

    output: Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]
    denoised: Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]


# The direction from the image to the latents: the output of models that predict noise, and of flow matching.
DIRECTION = Prediction(lambda x, denoised, sigma: (x - denoised) / sigma, lambda x, output, sigma: x - output * sigma)
_VELOCITY = Prediction(
    lambda x, denoised, sigma: (x / (sigma**2 + 1) - denoised) * (sigma**2 + 1) ** 0.5 / sigma,
    lambda x, output, sigma: x / (sigma**2 + 1) - output * sigma / (sigma**2 + 1) ** 0.5,
)
_IMAGE = Prediction(lambda x, denoised, sigma: denoised, lambda x, output, sigma: output)
# By diffusers' names.
PREDICTIONS = {"epsilon": DIRECTION, "flow_prediction": DIRECTION, "v_prediction": _VELOCITY, "sample": _IMAGE}


def prediction_of(schedule: CacheSchedule) -> Prediction:
    """What a schedule's products are of, as its `config.prediction_type` says; the direction if it says nothing.

    Raises:
        ScheduleError: a type that is not known.
    """
    told = schedule.config.get("prediction_type", "epsilon")
    if told not in PREDICTIONS:
        raise ScheduleError(
            f"schedule {schedule.name!r}: config.prediction_type", expected=", ".join(PREDICTIONS), found=repr(told)
        )
    return PREDICTIONS[told]
