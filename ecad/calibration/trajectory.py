"""What uncached images go through, and outputs fitted so that cached images go through the same.

With a cached image's latents x and an uncached one's y, both before a step that makes base + k * output of them, the
output (y_next - base) / k brings the cached image back to where the uncached one is. A linear combination of the newest
computed outputs is fitted to it, step by step along the cached run itself, so that each fit mends what the ones before
it left. Relatives: L2P-Cache (arXiv 2604.26365) and TCC (arXiv 2605.24870) learn such combinations for given steps;
bespoke solvers (arXiv 2310.19075) and S4S (arXiv 2502.17423) fit a solver's coefficients to finer trajectories.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from ecad.calibration.sampler import affine_step, latents_of
from ecad.errors import EcadError
from ecad.runtime.overrides import After, Around
from ecad.schedules.output_weights import MAX_OUTPUTS, OutputWeights

# Eigenvalues of a fit's normal equations below this, relative, are rounding.
_ROUNDING = 1e-9
# A prompt weighs as one over its squared error, but no error counts as smaller than this, relative to its target.
_SMALLEST = 1e-6
_ROUNDS = 4


@dataclass
class Trajectory:
    """The latents and outputs of a batch of uncached images.

    Attributes:
        latents: what each step begins with, and the last one's result: steps + 1 tensors.
        outputs: of the denoiser, after guidance: steps tensors.
        coefficients: what each step multiplies its output by; empty if the sampler is not affine.
    """

    latents: list[torch.Tensor] = field(default_factory=list)
    outputs: list[torch.Tensor] = field(default_factory=list)
    coefficients: list[float] = field(default_factory=list)

    @property
    def steps(self) -> int:
        """Rows of the sampler's loop."""
        return len(self.outputs)

    @property
    def is_affine(self) -> bool:
        """Whether outputs can be fitted."""
        return len(self.coefficients) == self.steps

    def products(self) -> np.ndarray:
        """`CacheSchedule.output_products` of these images."""
        flat = torch.stack([output.detach().float().cpu().flatten() for output in self.outputs]).double()
        half = np.asarray(flat @ flat.T)
        table = (half + half.T) / 2  # a product is not symmetric to the last bit
        return np.asarray(np.round(table * (len(table) / table.trace()), 10))


@contextmanager
def recorded_trajectory(pipe: Any) -> Iterator[Trajectory]:
    """Record the one batch that a pipeline makes, uncached, within a `with` block.

    Raises:
        EcadError: it makes several.
    """
    found = Trajectory()

    def see(step: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        output, rest, named = _split(args, kwargs)
        if len(found.coefficients) == found.steps:
            try:
                found.coefficients.append(affine_step(pipe.scheduler, output, rest, named).coefficient)
            except ValueError:
                found.coefficients.clear()
        found.outputs.append(output.detach().clone())
        found.latents[len(found.outputs) - 1 :] = [_sample(rest, named).detach().clone()]
        result = step(*args, **kwargs)
        found.latents.append(latents_of(result).detach().clone())
        return result

    with _around_steps(pipe, see, lambda: bool(found.outputs)):
        yield found


class OutputFit:
    """Fits output weights along one cached run of the images of a trajectory.

    Args:
        trajectory: of the same images, uncached.
        runs: bool (steps,), in which steps the denoiser runs.
        corrects: whether computed outputs are fitted, too, by the two before: they mend what staleness did to the
            latents. Then forecasts are made of two outputs, else of three: that is better (docs/search.md).

    Attributes:
        weights: one row a step so far.
        error: mean over images of the log of the squared error of the latest latents.
    """

    def __init__(self, trajectory: Trajectory, runs: Sequence[bool], corrects: bool) -> None:
        self._trajectory, self._runs, self._corrects = trajectory, list(runs), corrects
        self._outputs: list[torch.Tensor] = []
        self.weights: list[tuple[float, ...]] = []
        self.error = -np.inf

    def see(self, scheduler: Any, step: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """A sampler's step, seen from around: it is given the fitted output."""
        output, rest, named = _split(args, kwargs)
        row, target = len(self.weights), self._trajectory.latents[len(self.weights) + 1]
        if self._runs[row]:
            self._outputs = [output.detach().clone(), *self._outputs[: MAX_OUTPUTS - 1]]
        newest = self._outputs if self._runs[row] or not self._corrects else self._outputs[:2]
        weights: tuple[float, ...] = (1.0,)
        given = newest[0]
        if not self._runs[row] or (len(newest) > 1 and self._corrects):
            parts = [newest[0], *(one - other for one, other in pairwise(newest))]
            base, coefficient = affine_step(scheduler, newest[0], rest, named)
            weights = _fitted(parts, (target - base) / coefficient) if coefficient else weights
            given = torch.stack([weight * part for weight, part in zip(weights, parts, strict=False)]).sum(dim=0)
        self.weights.append(weights)
        result = step(given.to(output.dtype), *rest, **named)
        self.error = _log_error(latents_of(result), target)
        return result


def fitted_weights(
    pipe: Any, trajectory: Trajectory, runs: Sequence[bool], corrects: bool, make: Callable[[], Any]
) -> tuple[OutputWeights, float]:
    """Fit the output weights of one schedule.

    Args:
        pipe: whose scheduler is watched.
        trajectory, runs, corrects: as for `OutputFit`.
        make: makes the trajectory's images under the schedule, in one batch.

    Returns the weights, and the mean over images of the log of the last latents' squared error.

    Raises:
        EcadError: the images were not made in one batch.
    """
    fit = OutputFit(trajectory, runs, corrects)

    def see(step: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        return fit.see(pipe.scheduler, step, args, kwargs)

    with _around_steps(pipe, see, lambda: bool(fit.weights)):
        make()
    return tuple(fit.weights), fit.error


@contextmanager
def _around_steps(
    pipe: Any, see: Callable[[Callable[..., Any], Any, Any], Any], is_begun: Callable[[], bool]
) -> Iterator[None]:
    """Put `see` around a scheduler's step for one generation; a second one raises EcadError."""

    def begin() -> None:
        if is_begun():
            raise EcadError("calibrate: there is no memory for all images at once: expected fewer prompts")

    overrides = [Around(pipe.scheduler, "step", see), After(pipe.scheduler, "set_timesteps", begin)]
    try:
        yield
    finally:
        for override in overrides:
            override.remove()


def _split(args: Any, kwargs: Any) -> tuple[torch.Tensor, Any, dict[str, Any]]:
    """The denoiser's output among the arguments of a scheduler's step, and the others."""
    if args:
        return args[0], args[1:], dict(kwargs)
    return kwargs["model_output"], (), {key: value for key, value in kwargs.items() if key != "model_output"}


def _sample(args: Any, kwargs: Any) -> torch.Tensor:
    found: torch.Tensor = kwargs["sample"] if "sample" in kwargs else args[1]
    return found


def _fitted(parts: Sequence[torch.Tensor], target: torch.Tensor) -> tuple[float, ...]:
    """The combination with the least mean log of the squared error over images, by reweighted least squares.

    Plain least squares would fit the few images that are hardest; decibels count all alike.
    """
    columns = torch.stack([_by_image(part) for part in parts], dim=1)
    goal = _by_image(target)
    gram = (columns @ columns.transpose(1, 2)).double().cpu().numpy()
    shared = (columns @ goal[:, :, None])[..., 0].double().cpu().numpy()
    own = (goal * goal).sum(dim=1).double().cpu().numpy()
    importance = 1 / np.maximum(own, np.finfo(float).tiny)
    for _ in range(_ROUNDS):
        normal, right = np.tensordot(importance, gram, 1), importance @ shared
        weights, *_ = np.linalg.lstsq(normal, right, rcond=_ROUNDING)
        left = own - 2 * shared @ weights + np.einsum("i,nij,j->n", weights, gram, weights)
        importance = 1 / (np.maximum(left, 0) + _SMALLEST * own + np.finfo(float).tiny)
    return tuple(weights.tolist())


def _by_image(tensor: torch.Tensor) -> torch.Tensor:
    precise = torch.float32 if tensor.device.type == "mps" else torch.float64
    return tensor.flatten(1).to(precise)


def _log_error(latents: torch.Tensor, target: torch.Tensor) -> float:
    squared = _by_image(latents - target).square().mean(dim=1)
    return float(squared.clamp_min(1e-30).log().mean())
