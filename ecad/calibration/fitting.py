"""Fits output weights to schedules of whole steps, and counts the images that it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ecad.calibration.trajectory import Trajectory, fitted_weights
from ecad.schedules.schedule import CacheSchedule

# Makes the images of prompts at some places under a schedule, or uncached: uint8 (images, height, width, 3).
Make = Callable[[Sequence[int], CacheSchedule | None], np.ndarray]


class Images:
    """Makes images, and counts the denoiser's work for them in uncached images.

    Args:
        make: makes them.

    Attributes:
        made: so many so far; a fraction for an image whose denoiser does not run in every step.
    """

    def __init__(self, make: Make) -> None:
        self._make = make
        self.made = 0.0

    def __call__(self, places: Sequence[int], schedule: CacheSchedule | None) -> np.ndarray:
        self.made += len(places) * (1.0 if schedule is None else share_run(schedule))
        return self._make(places, schedule)


def share_run(schedule: CacheSchedule) -> float:
    """The share of steps in which a schedule runs the denoiser."""
    return float(schedule.recompute.any(axis=1).mean())


@dataclass(frozen=True, eq=False)
class Fitted:
    """A schedule of whole steps with the output weights that were fitted to it.

    Args:
        steps: the steps that compute, in order.
        corrects: as for `OutputFit`.
        schedule: with its weights.
        error: mean over the fitting images of the log of the last latents' squared error.
    """

    steps: tuple[int, ...]
    corrects: bool
    schedule: CacheSchedule
    error: float


class Fitter:
    """Fits schedules along cached runs of the images of one trajectory; each once.

    Args:
        pipe: the pipeline.
        trajectory: of the fitting images.
        images: makes them.
        places: theirs.
    """

    def __init__(self, pipe: Any, trajectory: Trajectory, images: Images, places: Sequence[int]) -> None:
        self._pipe, self._trajectory, self._images, self._places = pipe, trajectory, images, places
        self._uncached = CacheSchedule.for_model(pipe, trajectory.steps)
        self._known: dict[tuple[tuple[int, ...], bool], Fitted] = {}
        self.products = trajectory.products()

    def unfitted(self, steps: Sequence[int]) -> CacheSchedule:
        """The schedule that computes these steps and forecasts the others by their products."""
        runs = np.isin(np.arange(self._trajectory.steps), steps)
        return self._uncached.replace(
            recompute=np.repeat(runs[:, None], len(self._uncached.sites), axis=1),
            name=f"{len(steps)}_of_{self._trajectory.steps}",
            forecast=True,
            output_products=self.products,
        )

    def fit(self, steps: tuple[int, ...], corrects: bool) -> Fitted:
        """Fit the weights of the schedule that computes these steps; raises as `fitted_weights` does."""
        if (steps, corrects) not in self._known:
            plain = self.unfitted(steps)
            runs = np.asarray(plain.recompute.any(axis=1)).tolist()
            weights, error = fitted_weights(
                self._pipe, self._trajectory, runs, corrects, lambda: self._images(self._places, plain)
            )
            self._known[steps, corrects] = Fitted(steps, corrects, plain.replace(output_weights=weights), error)
        return self._known[steps, corrects]
