"""Records the trajectory of uncached images, and fits output weights so that cached images follow it.

A sampler's step makes base + k * output of its latents. The output (y_next - base) / k therefore moves a cached image's
latents to y_next, the next latents of the uncached image. A linear combination of the newest computed outputs is fitted
to this target, step by step along the cached run, so that each fit corrects the remaining error of the previous ones.
Related work: L2P-Cache (arXiv 2604.26365) and TCC (arXiv 2605.24870) learn such combinations for given steps. Bespoke
solvers (arXiv 2310.19075) and S4S (arXiv 2502.17423) fit a solver's coefficients to finer trajectories.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch

from ecad.calibration.sampler import affine_step, latents_of
from ecad.errors import EcadError
from ecad.runtime.overrides import After, Around
from ecad.schedules.output_weights import MAX_OUTPUTS, OutputWeights
from ecad.utils.protocols import Args, Kwargs, Pipeline, Sampler

# Relative eigenvalues of the normal equations below this are rounding.
_ROUNDING = 1e-9
# The weight of a prompt is the inverse of its squared error, which counts at least this much relative to its target.
_SMALLEST = 1e-6
_ROUNDS = 4


# (step, its arguments) -> its result.
Call = Callable[..., object]
See = Callable[[Call, Args, Kwargs], object]


@dataclass
class Trajectory:
    """The latents and outputs of a batch of uncached images.

    Attributes:
        latents: latents before each step and after the last one: steps + 1 tensors.
        outputs: outputs of the denoiser, after guidance: steps tensors.
        coefficients: the sampler's coefficient of each output, NaN where its step is not affine.
    """

    latents: list[torch.Tensor] = field(default_factory=list)
    outputs: list[torch.Tensor] = field(default_factory=list)
    coefficients: list[float] = field(default_factory=list)

    @property
    def steps(self) -> int:
        """Number of rows of the sampler's loop."""
        return len(self.outputs)

    @property
    def is_affine(self) -> bool:
        """Whether outputs can be fitted."""
        return bool(np.isfinite(self.coefficients).all())

    def products(self) -> np.ndarray:
        """`CacheSchedule.output_products` of these images."""
        flat = torch.stack([output.detach().float().cpu().flatten() for output in self.outputs]).double()
        half = np.asarray(flat @ flat.T)
        table = (half + half.T) / 2  # the product is symmetric up to rounding only
        return np.asarray(np.round(table * (len(table) / table.trace()), 10))


@contextmanager
def recorded_trajectory(pipe: Pipeline) -> Iterator[Trajectory]:
    """Record the uncached batch that a pipeline generates in a `with` block.

    Raises:
        EcadError: the pipeline generates several batches.
    """
    found = Trajectory()

    def see(step: Call, args: Args, kwargs: Kwargs) -> object:
        output, rest, named = _split(args, kwargs)
        found.coefficients.append(_coefficient(pipe.scheduler, args, kwargs))
        found.outputs.append(output.detach().clone())
        found.latents[len(found.outputs) - 1 :] = [_sample(rest, named).detach().clone()]
        result = step(*args, **kwargs)
        found.latents.append(latents_of(result).detach().clone())
        return result

    with _around_steps(pipe, see, lambda: _refuse_if(bool(found.outputs))):
        yield found


@contextmanager
def recorded_coefficients(pipe: Pipeline) -> Iterator[list[float]]:
    """Record `Trajectory.coefficients` of the last batch that a pipeline generates in a `with` block."""
    found: list[float] = []

    def see(step: Call, args: Args, kwargs: Kwargs) -> object:
        found.append(_coefficient(pipe.scheduler, args, kwargs))
        return step(*args, **kwargs)

    with _around_steps(pipe, see, found.clear):
        yield found


class OutputFit:
    """Fits output weights along one cached run of the images of a trajectory.

    Args:
        trajectory: trajectory of the same images, uncached.
        runs: bool (steps,), whether the denoiser runs in each step.
        corrects: whether computed outputs are combined with the two before as well, which corrects the latents' error.
            Extrapolations then use two outputs instead of three, which is better (docs/search.md).

    Attributes:
        weights: one row per step so far.
        error: mean over images of the logarithm of the squared error of the current latents.
    """

    def __init__(self, trajectory: Trajectory, runs: Sequence[bool], corrects: bool) -> None:
        self._trajectory, self._runs, self._corrects = trajectory, list(runs), corrects
        self._outputs: list[torch.Tensor] = []
        self.weights: list[tuple[float, ...]] = []
        self.error = -np.inf

    def see(self, scheduler: Sampler, step: Call, args: Args, kwargs: Kwargs) -> object:
        """Call a sampler's step with the fitted output."""
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
    pipe: Pipeline, trajectory: Trajectory, runs: Sequence[bool], corrects: bool, make: Callable[[], object]
) -> tuple[OutputWeights, float]:
    """Fit the output weights of one schedule.

    Args:
        pipe: the pipeline; the calls of its scheduler are wrapped.
        trajectory: as for `OutputFit`.
        runs: as for `OutputFit`.
        corrects: as for `OutputFit`.
        make: generates the trajectory's images under the schedule, in one batch.

    Returns:
        the weights, and the mean over images of the logarithm of the last latents' squared error.

    Raises:
        EcadError: the images were not generated in one batch.
    """
    fit = OutputFit(trajectory, runs, corrects)

    def see(step: Call, args: Args, kwargs: Kwargs) -> object:
        return fit.see(pipe.scheduler, step, args, kwargs)

    with _around_steps(pipe, see, lambda: _refuse_if(bool(fit.weights))):
        make()
    return tuple(fit.weights), fit.error


@contextmanager
def _around_steps(pipe: Pipeline, see: See, begin: Callable[[], None]) -> Iterator[None]:
    """Wrap a scheduler's step in `see`, and call `begin` at the beginning of each generation."""
    overrides = [Around(pipe.scheduler, "step", see), After(pipe.scheduler, "set_timesteps", begin)]
    try:
        yield
    finally:
        for override in overrides:
            override.remove()


def _refuse_if(begun: bool) -> None:
    if begun:
        raise EcadError("calibrate: the images of all prompts do not fit into memory at once; give fewer prompts")


def _coefficient(scheduler: Sampler, args: Args, kwargs: Kwargs) -> float:
    output, rest, named = _split(args, kwargs)
    try:
        return affine_step(scheduler, output, rest, named).coefficient
    except ValueError:
        return math.nan


def _split(args: Args, kwargs: Kwargs) -> tuple[torch.Tensor, Args, Kwargs]:
    """Split the arguments of a scheduler's step into the denoiser's output and the others."""
    if args:
        return args[0], args[1:], dict(kwargs)
    return kwargs["model_output"], (), {key: value for key, value in kwargs.items() if key != "model_output"}


def _sample(args: Args, kwargs: Kwargs) -> torch.Tensor:
    found: torch.Tensor = kwargs["sample"] if "sample" in kwargs else args[1]
    return found


def _fitted(parts: Sequence[torch.Tensor], target: torch.Tensor) -> tuple[float, ...]:
    """The combination with the least mean logarithm of the squared error, by iteratively reweighted least squares.

    Ordinary least squares would fit the few images with the largest errors; in decibels all images count equally.
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
