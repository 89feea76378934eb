"""`ecad.calibrate`: schedules of whole steps for many speed-ups, from a handful of prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import numpy as np
import torch

from ecad.calibration.fitting import Fitter, Images, Make, share_run
from ecad.calibration.polish import polish
from ecad.calibration.step_choice import best_forecasts, harms
from ecad.calibration.trajectory import Trajectory, recorded_trajectory
from ecad.errors import EcadError, NotFiniteError
from ecad.image_generators.generator import frames_of, pictures_of
from ecad.quality import psnr
from ecad.runtime.cache import cached
from ecad.schedules.front import Front, Point
from ecad.schedules.plan_key import plan_key
from ecad.schedules.sampler_sigmas import sigmas_config
from ecad.schedules.schedule import CacheSchedule
from ecad.utils.pareto import pareto
from ecad.utils.protocols import Pipeline

SPEEDUPS = (1.25, 1.5, 1.75, 2, 2.25, 2.5, 2.75, 3, 3.5, 4, 5, 6)
LEAST = 2
# Per speed-up: two choices of steps are fitted in two ways, and three schedules (unfitted, fitted, polished) validated.
_FITS, _CHOICES = 4, 3


def calibrate(
    pipe: Pipeline,
    prompts: Sequence[str],
    *,
    seed: int = 0,
    speedups: Sequence[float] = SPEEDUPS,
    max_images: float | None = None,
    on_progress: Callable[[float], None] | None = None,
    **call: object,
) -> Front:
    """Make a Pareto front of schedules for a pipeline, without a search.

    Half of the prompts are generated uncached. Dynamic programming over their outputs chooses the computed steps for
    each speed-up, and output weights are fitted along a cached run. With a larger `max_images`, computed steps are
    moved as long as the fitted images improve. The other half, the validation prompts, selects the schedules.

    Args:
        pipe: a text-to-image or text-to-video diffusers pipeline with one denoiser.
        prompts: at least 2 representative prompts; 8 are enough.
        seed: noise seed of the first prompt; the seeds of the next prompts count up from it.
        speedups: ratios of all steps to computed steps.
        max_images: budget of the denoiser's work in uncached images. No step is moved with None, or with a budget
            below what the fits need.
        on_progress: called with the fraction of the work that is done.
        call: further arguments of the pipeline's call, such as num_inference_steps and guidance_scale. The schedules
            are made for these.

    Returns:
        the front; its quality is the PSNR of the validation prompts' images in decibels; of videos, the mean of their
        frames'.

    Raises:
        NotFiniteError: the model gives NaN or infinity.
        EcadError: there are too few prompts, no denoiser or several, or too many prompts for the memory.

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
        with torch.no_grad(), nullcontext() if schedule is None else cached(pipe, schedule, exact=True):
            output = pipe([prompts[i] for i in places], generator=noise, output_type="np", **call)
        strips, frames = pictures_of(output), frames_of(output)
        images = strips.reshape(len(strips) * frames, -1, *strips.shape[2:])
        if not np.isfinite(images).all():
            raise NotFiniteError("calibrate: the pipeline gives NaN or infinity instead of images")
        return np.asarray(np.round(images * 255), dtype=np.uint8)

    name = type(getattr(pipe, "transformer", pipe)).__name__
    return Calibration(pipe, make, len(prompts), speedups, max_images, on_progress).front(name)


class Calibration:
    """One calibration of a pipeline.

    Args:
        pipe: the pipeline; the calls of its scheduler are recorded.
        make: generates images with the pipeline.
        prompts: number of prompts.
        speedups: as for `calibrate`.
        max_images: as for `calibrate`.
        on_progress: as for `calibrate`.

    Raises:
        EcadError: for the same reasons as `calibrate`.
    """

    def __init__(
        self,
        pipe: Pipeline,
        make: Make,
        prompts: int,
        speedups: Sequence[float] = SPEEDUPS,
        max_images: float | None = None,
        on_progress: Callable[[float], None] | None = None,
    ) -> None:
        if prompts < LEAST:
            raise EcadError(f"calibrate: {prompts} prompts are too few; give at least {LEAST}")
        if not speedups or min(speedups) < 1:
            raise EcadError(f"calibrate: `speedups` must be 1 or more, found {list(speedups)}")
        self._pipe, self._images, self._speedups, self._max_images = pipe, Images(make), speedups, max_images
        self._on_progress = on_progress or (lambda _: None)
        middle = -(-prompts // 2)
        self._fitting, self._validation = range(middle), range(middle, prompts)

    def front(self, name: str) -> Front:
        """Calibrate; raises the errors of `calibrate`."""
        with recorded_trajectory(self._pipe) as trajectory:
            self._images(self._fitting, None)
        levels = sigmas_config(self._pipe.scheduler, trajectory.steps)
        fitter = Fitter(self._pipe, trajectory, self._images, self._fitting)
        counts, prompts = _counts(trajectory.steps, self._speedups), len(self._fitting) + len(self._validation)
        self._in_all = planned_images(prompts, trajectory.steps, self._speedups, self._max_images)
        self._for_validation = _validation_images(prompts, trajectory.steps, self._speedups)
        candidates = self._candidates(fitter, trajectory, counts)
        candidates = [one.replace(config={**one.config, **levels}) for one in candidates]
        points = self._validated(list({plan_key(one): one for one in candidates}.values()))
        costs, qualities = np.array([p.cost for p in points]), np.array([p.quality for p in points])
        made = {"method": "calibrate", "images": round(self._images.made, 1)}
        split = {"fitting_prompts": len(self._fitting), "validation_prompts": len(self._validation)}
        return Front(name, [points[i] for i in pareto(costs, qualities)], provenance=made | split)

    def _candidates(self, fitter: Fitter, trajectory: Trajectory, counts: Sequence[int]) -> list[CacheSchedule]:
        """The candidates for each number of computed steps, among which the validation prompts select."""
        laws = harms(trajectory.coefficients) if trajectory.is_affine else [np.ones(trajectory.steps)]
        chosen = [best_forecasts(fitter.products, harm) for harm in laws]
        steps = {count: list(dict.fromkeys(law[count - 1] for law in chosen)) for count in counts}
        if not trajectory.is_affine:
            return [fitter.unfitted(places) for count in counts for places in steps[count]]
        starts = {}
        for count in counts:
            fits = [fitter.fit(places, corrects) for places in steps[count] for corrects in (False, True)]
            starts[count] = min(fits, key=lambda one: one.error)
            self._report()
        best = polish(fitter, starts, laws[0], lambda count: self._has_images(count / trajectory.steps))
        unfitted = [fitter.unfitted(starts[count].steps) for count in counts]
        return [*unfitted, *(one.schedule for one in (*starts.values(), *best.values()))]

    def _has_images(self, share: float) -> bool:
        """Whether the budget allows one more fit of a schedule that computes this fraction of the steps."""
        self._report()
        spent = self._images.made + self._for_validation + len(self._fitting) * share
        return self._max_images is not None and spent <= self._max_images

    def _validated(self, schedules: Sequence[CacheSchedule]) -> list[Point]:
        references, points = self._images(self._validation, None), []
        for schedule in schedules:
            quality = float(psnr(self._images(self._validation, schedule), references).mean())
            points.append(Point(schedule, share_run(schedule), quality))
            self._report()
        self._on_progress(1.0)
        return points

    def _report(self) -> None:
        self._on_progress(min(self._images.made / self._in_all, 1.0))


def planned_images(prompts: int, steps: int, speedups: Sequence[float], max_images: float | None) -> float:
    """Upper bound of the denoiser's work for a calibration, in uncached images.

    Args:
        prompts: number of prompts.
        steps: rows per image.
        speedups: as for `calibrate`.
        max_images: as for `calibrate`.
    """
    fitting = -(-prompts // 2) * (1 + _FITS * sum(_counts(steps, speedups)) / steps)
    return max(fitting + _validation_images(prompts, steps, speedups), max_images or 0.0)


def _validation_images(prompts: int, steps: int, speedups: Sequence[float]) -> float:
    return prompts // 2 * (1 + _CHOICES * sum(_counts(steps, speedups)) / steps)


def _counts(steps: int, speedups: Sequence[float]) -> list[int]:
    """Numbers of computed steps, one per speed-up."""
    return sorted({int(steps / speedup) for speedup in speedups} - {0, 1, steps})
