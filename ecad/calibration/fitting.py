"""Fits output weights to schedules of whole steps, and counts the images for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ecad.calibration.trajectory import Trajectory, fitted_weights
from ecad.schedules.schedule import CacheSchedule
from ecad.utils.protocols import Pipeline

# (indices of prompts, schedule or None for uncached) -> images, or all frames of videos, uint8 (n, height, width, 3).
Make = Callable[[Sequence[int], CacheSchedule | None], np.ndarray]


class Images:
    """Generates images, and counts the denoiser's work in uncached images.

    Args:
        make: generates the images.

    Attributes:
        made: work so far; an image whose denoiser does not run in every step counts as a fraction.
    """

    def __init__(self, make: Make) -> None:
        self._make = make
        self.made = 0.0

    def __call__(self, places: Sequence[int], schedule: CacheSchedule | None) -> np.ndarray:
        self.made += len(places) * (1.0 if schedule is None else share_run(schedule))
        return self._make(places, schedule)


def share_run(schedule: CacheSchedule) -> float:
    """The fraction of steps in which a schedule runs the denoiser."""
    return float(schedule.recompute.any(axis=1).mean())


@dataclass(frozen=True, eq=False)
class Fitted:
    """A schedule of whole steps with fitted output weights.

    Args:
        steps: the computed steps, in order.
        corrects: as for `OutputFit`.
        schedule: the schedule with its weights.
        error: mean over the fitting images of the logarithm of the last latents' squared error.
    """

    steps: tuple[int, ...]
    corrects: bool
    schedule: CacheSchedule
    error: float


class Fitter:
    """Fits schedules along cached runs of the images of one trajectory; results are cached.

    Args:
        pipe: the pipeline.
        trajectory: trajectory of the fitting images.
        images: generates the fitting images.
        places: indices of their prompts.
    """

    def __init__(self, pipe: Pipeline, trajectory: Trajectory, images: Images, places: Sequence[int]) -> None:
        self._pipe, self._trajectory, self._images, self._places = pipe, trajectory, images, places
        self._uncached = CacheSchedule.for_model(pipe, trajectory.steps)
        self._known: dict[tuple[tuple[int, ...], bool], Fitted] = {}
        self.products = trajectory.products()

    def unfitted(self, steps: Sequence[int]) -> CacheSchedule:
        """The schedule that computes these steps and extrapolates the others from the output products."""
        runs = np.isin(np.arange(self._trajectory.steps), steps)
        return self._uncached.replace(
            recompute=np.repeat(runs[:, None], len(self._uncached.sites), axis=1),
            name=f"{len(steps)}_of_{self._trajectory.steps}",
            forecast=True,
            output_products=self.products,
        )

    def fit(self, steps: tuple[int, ...], corrects: bool) -> Fitted:
        """Fit the weights of the schedule that computes these steps; raises the errors of `fitted_weights`."""
        if (steps, corrects) not in self._known:
            plain = self.unfitted(steps)
            runs = np.asarray(plain.recompute.any(axis=1)).tolist()
            weights, error = fitted_weights(
                self._pipe, self._trajectory, runs, corrects, lambda: self._images(self._places, plain)
            )
            self._known[steps, corrects] = Fitted(steps, corrects, plain.replace(output_weights=weights), error)
        return self._known[steps, corrects]
