"""Latents in the scale in which a sampler only adds noise, x = x0 + sigma * noise, for any kind of model.

Flow matching, x = (1 - sigma) * x0 + sigma * noise, fits with its own sigma: x - sigma * velocity is x0.
"""

from __future__ import annotations

from typing import Any

import torch


def scales(scheduler: Any) -> tuple[float, float]:
    """Of the current step: what the clean latents are multiplied by, and the noise level without that factor."""
    sigma = float(scheduler.sigmas[scheduler.step_index or 0])
    return (1.0, sigma) if "FlowMatch" in type(scheduler).__name__ else ((1 + sigma**2) ** -0.5, sigma)


def denoised_latents(scheduler: Any, noisy: torch.Tensor, prediction: torch.Tensor) -> torch.Tensor:
    """The clean latents that a prediction stands for."""
    alpha, sigma = scales(scheduler)
    if scheduler.config.get("prediction_type") == "v_prediction":
        return alpha**2 * noisy - sigma * alpha * prediction
    return noisy - sigma * prediction


def prediction_of(scheduler: Any, noisy: torch.Tensor, denoised: torch.Tensor) -> torch.Tensor:
    """The prediction that stands for clean latents; the inverse of `denoised_latents`."""
    alpha, sigma = scales(scheduler)
    if scheduler.config.get("prediction_type") == "v_prediction":
        return (alpha**2 * noisy - denoised) / (sigma * alpha)
    return (noisy - denoised) / sigma


def with_variance(prediction: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """A prediction with the channels of a denoiser's output that follow it, which the pipeline drops."""
    return torch.cat([prediction, output[:, prediction.shape[1] :]], dim=1)
