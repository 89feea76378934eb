"""`ecad.calibrate`: schedules of whole steps for every useful speed-up, from a handful of prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ecad.calibration.step_choice import best_forecasts, harms
from ecad.calibration.trajectory import Trajectory, fitted_weights, recorded_trajectory
from ecad.errors import EcadError
from ecad.image_generators.generator import pictures_of
from ecad.quality import psnr
from ecad.runtime.cache import cached
from ecad.schedules.front import Front, Point
from ecad.schedules.schedule import CacheSchedule
from ecad.utils.pareto import pareto

SPEEDUPS = (1.25, 1.5, 1.75, 2, 2.25, 2.5, 2.75, 3, 3.5, 4, 5, 6)
LEAST = 2

# Makes the images of prompts at some places under a schedule, or uncached: uint8 (images, height, width, 3).
Make = Callable[[Sequence[int], CacheSchedule | None], np.ndarray]


def calibrate(
    pipe: Any,
    prompts: Sequence[str],
    *,
    seed: int = 0,
    speedups: Sequence[float] = SPEEDUPS,
    on_progress: Callable[[float], None] | None = None,
    **call: Any,
) -> Front:
    """A front of schedules for a pipeline, without a search.

    Half of the prompts are generated uncached, which tells which steps matter; for each speed-up the steps to compute
    are chosen by dynamic programming, and output weights are fitted along a cached run. The other half, the validation
    prompts, choose among what was fitted.

    Args:
        pipe: a diffusers pipeline that makes images or videos of prompts, with one denoiser.
        prompts: at least 2, of the kind that it will be used for; 8 are enough.
        seed: of the first prompt's noise; the next prompt's is one more.
        speedups: how many times fewer steps than all compute.
        on_progress: called with the share of the work that is done.
        call: further arguments of the pipeline's call, such as num_inference_steps and guidance_scale: the schedules
            are for these.

    Returns:
        the front, its qualities the PSNR of the validation prompts' images in decibels.

    Raises:
        EcadError: too few prompts, no denoiser or several, or too many prompts for the memory.

    >>> import ecad
    >>> generator = ecad.get_image_generator("EmojiFluxImageGenerator")
    >>> front = calibrate(
    ...     generator.pipe, ["a 3d tulip on a pink background", "a google bear on a blue background"],
    ...     speedups=[2], num_inference_steps=4, height=64, width=64, **generator.call)
    >>> int(front.pick(speedup=2).recompute.any(axis=1).sum())
    2
    """

    def make(places: Sequence[int], schedule: CacheSchedule | None) -> np.ndarray:
        noise = [torch.Generator("cpu").manual_seed(seed + place) for place in places]
        with torch.no_grad(), nullcontext() if schedule is None else cached(pipe, schedule):
            images = pictures_of(pipe([prompts[i] for i in places], generator=noise, output_type="np", **call))
        return np.asarray(np.round(images * 255), dtype=np.uint8)

    name = type(getattr(pipe, "transformer", pipe)).__name__
    return Calibration(pipe, make, len(prompts), speedups, on_progress or (lambda _: None)).front(name)


@dataclass
class Calibration:
    """One calibration of a pipeline.

    Args:
        pipe: whose scheduler is watched.
        make: makes images with it.
        prompts: how many there are.
        speedups: as for `calibrate`.
        on_progress: as for `calibrate`.

    Attributes:
        images: made so far, in units of the denoiser's work for an uncached one.
    """

    pipe: Any
    make: Make
    prompts: int
    speedups: Sequence[float]
    on_progress: Callable[[float], None]
    images: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        if self.prompts < LEAST:
            raise EcadError(f"calibrate: expected at least {LEAST} prompts, found {self.prompts}")
        if not self.speedups or min(self.speedups) < 1:
            raise EcadError(f"calibrate: expected speedups of at least 1, found {list(self.speedups)}")
        middle = -(-self.prompts // 2)
        self._fitting, self._validation = range(middle), range(middle, self.prompts)

    def front(self, name: str) -> Front:
        """Calibrate; raises as `calibrate` does."""
        with recorded_trajectory(self.pipe) as trajectory:
            self._make(self._fitting, None)
        references = self._make(self._validation, None)
        counts = sorted({int(trajectory.steps / speedup) for speedup in self.speedups} - {0, 1, trajectory.steps})
        points = []
        for place, count in enumerate(counts):
            points += [self._validated(one, references) for one in self._candidates(trajectory, count)]
            self.on_progress((place + 1) / len(counts))
        costs, qualities = np.array([p.cost for p in points]), np.array([p.quality for p in points])
        made = {"method": "calibrate", "images": round(self.images, 1)}
        split = {"fitting_prompts": len(self._fitting), "validation_prompts": len(self._validation)}
        return Front(name, [points[i] for i in pareto(costs, qualities)], provenance=made | split)

    def _candidates(self, trajectory: Trajectory, count: int) -> Iterator[CacheSchedule]:
        """The best fitted schedule of so many computed steps by the fitting prompts, and the same steps unfitted."""
        products = trajectory.products()
        uncached = CacheSchedule.for_model(self.pipe, trajectory.steps)
        fitted = []
        weighings = harms(trajectory.coefficients) if trajectory.is_affine else [np.ones(trajectory.steps)]
        for places in dict.fromkeys(best_forecasts(products, harm)[count - 1] for harm in weighings):
            runs = np.isin(np.arange(trajectory.steps), places)
            plain = uncached.replace(
                recompute=np.repeat(runs[:, None], len(uncached.sites), axis=1),
                name=f"{count}_of_{trajectory.steps}",
                forecast=True,
                output_products=products,
            )
            if not trajectory.is_affine:
                yield plain
                return
            for corrects in (False, True):
                fitted.append((*self._fit(trajectory, plain, runs.tolist(), corrects), plain))
        weights, _, plain = min(fitted, key=lambda found: found[1])
        yield plain
        yield plain.replace(output_weights=weights)

    def _fit(self, trajectory: Trajectory, plain: CacheSchedule, runs: list[bool], corrects: bool) -> Any:
        return fitted_weights(self.pipe, trajectory, runs, corrects, lambda: self._make(self._fitting, plain))

    def _validated(self, schedule: CacheSchedule, references: np.ndarray) -> Point:
        quality = float(psnr(self._make(self._validation, schedule), references).mean())
        return Point(schedule, self._cost(schedule), quality)

    def _make(self, places: Sequence[int], schedule: CacheSchedule | None) -> np.ndarray:
        self.images += len(places) * (1.0 if schedule is None else self._cost(schedule))
        return self.make(places, schedule)

    def _cost(self, schedule: CacheSchedule) -> float:
        return float(schedule.recompute.any(axis=1).mean())
