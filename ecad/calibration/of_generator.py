"""The calibrated front of an image generator, with its cost in MACs, its provenance and held-out scores."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from ecad.calibration.calibrate import SPEEDUPS, Calibration, planned_images
from ecad.calibration.step_choice import Outputs
from ecad.calibration.trajectory import Trajectory, fitted_weights, recorded_coefficients, recorded_trajectory
from ecad.cost.macs import macs_table
from ecad.image_generators import ImageGenerator
from ecad.image_generators.provenance import provenance_for
from ecad.prompts.embeds import PromptEmbeds
from ecad.quality import get_scorer, mean_interval
from ecad.quality.video import by_frame
from ecad.schedules.front import Front, Point
from ecad.schedules.plan import executed
from ecad.schedules.provenance import KEY, Interval
from ecad.schedules.sampler_sigmas import sigmas_config
from ecad.schedules.schedule import CacheSchedule
from ecad.sites.readers import readers

# Far from the seeds of the calibration.
HELD_OUT_SEED = 1_000_000


def calibrated_front(
    generator: ImageGenerator,
    prompts: Sequence[str],
    held_out: Sequence[str] = (),
    *,
    seed: int = 0,
    speedups: Sequence[float] = SPEEDUPS,
    max_images: float | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> Front:
    """`ecad.calibrate` for an image generator with its default settings.

    Args:
        generator: the generator.
        prompts: as for `calibrate`: the first half for fitting, the other for validation.
        held_out: prompts that score the schedules of the front and are not used otherwise.
        seed: as for `calibrate`.
        speedups: as for `calibrate`.
        max_images: as for `calibrate`.
        on_progress: as for `calibrate`.

    Returns:
        the front; its schedules carry their MACs and provenance.

    Raises:
        EcadError: for the same reasons as `calibrate`.
    """
    embeds, frames = generator.encode(prompts), generator.architecture.frames

    def make(places: Sequence[int], schedule: CacheSchedule | None) -> np.ndarray:
        images = generator.generate(embeds[list(places)], [seed + place for place in places], schedule)
        return images.reshape(len(images) * frames, -1, *images.shape[2:])

    front = Calibration(generator.pipe, make, len(prompts), speedups, max_images, on_progress).front(generator.name)
    scores = _held_out_scores(generator, front.schedules, held_out)
    table, origin = macs_table(generator.architecture), provenance_for(generator)
    points = []
    for point, found in zip(front.points, scores, strict=True):
        macs = int(table.price(point.schedule.recompute, True))
        provenance = replace(origin, search=dict(front.provenance), held_out=found, held_out_images=len(held_out))
        schedule = point.schedule.replace(
            metrics={"total_macs": macs, "total_macs_T": macs / 1e12, "quality": point.quality},
            attributes={KEY: provenance.to_json()},
        )
        points.append(Point(schedule, point.cost, point.quality, found))
    return replace(front, points=points, provenance={**front.provenance, "held_out_prompts": len(held_out)})


def planned(
    generator: ImageGenerator, prompts: Sequence[str], *, seed: int = 0, max_images: float | None = None
) -> tuple[float, float]:
    """Upper bound of the work of `calibrated_front`, without held-out scores.

    Args:
        generator: as for `calibrated_front`.
        prompts: as for `calibrated_front`.
        seed: as for `calibrated_front`.
        max_images: as for `calibrated_front`.

    Returns:
        the denoiser's work in uncached images, and seconds, estimated from one timed batch.
    """
    images, half = (
        planned_images(len(prompts), generator.rows(), SPEEDUPS, max_images),
        prompts[: -(-len(prompts) // 2)],
    )
    embeds = generator.encode(half)
    begin = time.perf_counter()
    generator.generate(embeds, range(seed, seed + len(half)))
    return images, (time.perf_counter() - begin) / len(half) * images


def outputs_of(generator: ImageGenerator, embeds: PromptEmbeds, seeds: Sequence[int]) -> Outputs | None:
    """What the outputs of uncached images tell, which this generates.

    Args:
        generator: generates the images.
        embeds: one row per image.
        seeds: one noise seed per image.

    Returns:
        None if the sampler took other rows than the generator has.
    """
    with recorded_coefficients(generator.pipe) as coefficients:
        products = generator.output_products(embeds, seeds)
    if products is None:
        return None
    levels = sigmas_config(generator.pipe.scheduler, len(products))
    return Outputs(products, tuple(coefficients) if np.isfinite(coefficients).all() else (), levels)


def weights_fitter(
    generator: ImageGenerator, prompts: Sequence[str], seeds: Sequence[int]
) -> Callable[[CacheSchedule], CacheSchedule]:
    """Make a function that fits output weights to schedules of a generator, along cached batches.

    Each schedule is fitted in both ways of `OutputFit`; the fit of smaller error is kept.

    Args:
        generator: generates the images.
        prompts: one prompt per image; all images must fit into memory at once.
        seeds: one noise seed per image.

    Returns:
        schedule that extrapolates -> the same with output weights, or unchanged if the sampler is not affine. The first
        call generates the uncached images.
    """

    @cache
    def batch() -> tuple[PromptEmbeds, Trajectory]:
        embeds = generator.encode(prompts)
        with recorded_trajectory(generator.pipe) as trajectory:
            generator.generate(embeds, seeds)
        return embeds, trajectory

    def fit(schedule: CacheSchedule) -> CacheSchedule:
        embeds, trajectory = batch()
        if not trajectory.is_affine:
            return schedule
        runs = np.asarray(executed(schedule.recompute, readers(schedule.sites)).any(axis=1)).tolist()
        plain = schedule.replace(output_weights=None)
        fits = [
            fitted_weights(generator.pipe, trajectory, runs, corrects, lambda: generator.generate(embeds, seeds, plain))
            for corrects in (False, True)
        ]
        weights, _ = min(fits, key=lambda fit: fit[1])
        return schedule.replace(output_weights=weights)

    return fit


def _held_out_scores(
    generator: ImageGenerator, schedules: Sequence[CacheSchedule], prompts: Sequence[str]
) -> list[dict[str, Interval]]:
    if not prompts:
        return [{} for _ in schedules]
    embeds, seeds = generator.encode(prompts), range(HELD_OUT_SEED, HELD_OUT_SEED + len(prompts))
    scorer = by_frame(get_scorer("psnr"), generator.architecture.frames)
    references = generator.generate(embeds, seeds)
    found = []
    for schedule in schedules:
        scores = scorer.score(generator.generate(embeds, seeds, schedule), prompts, references)
        found.append({"psnr": Interval(float(scores.mean()), *mean_interval(scores))})
    return found
