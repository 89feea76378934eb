"""The calibrated front of an image generator, with its cost in MACs, its provenance and held-out scores."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from ecad.calibration.calibrate import SPEEDUPS, Calibration, planned_images
from ecad.calibration.trajectory import Trajectory, fitted_weights, recorded_trajectory
from ecad.cost.macs import macs_table
from ecad.image_generators import ImageGenerator
from ecad.image_generators.provenance import provenance_for
from ecad.prompts.embeds import PromptEmbeds
from ecad.quality import mean_interval, psnr
from ecad.schedules.front import Front, Point
from ecad.schedules.plan import executed
from ecad.schedules.provenance import KEY, Interval
from ecad.schedules.schedule import CacheSchedule
from ecad.sites.readers import readers

# Away from the seeds of the calibration, which count from its own.
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
    """`ecad.calibrate` a generator at its own settings.

    Args:
        generator: whose pipeline.
        prompts: as for `calibrate`: the first half to fit, the others to choose by.
        held_out: prompts by which nothing is chosen; the front's schedules are scored by them, too.
        seed, speedups, max_images, on_progress: as for `calibrate`.

    Returns:
        the front; its schedules carry their MACs and provenance.

    Raises:
        EcadError: as `calibrate` does.
    """
    embeds = generator.encode(prompts)

    def make(places: Sequence[int], schedule: CacheSchedule | None) -> np.ndarray:
        return generator.generate(embeds[list(places)], [seed + place for place in places], schedule)

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
    """What `calibrated_front` will take at most, without held-out scores.

    Args:
        generator, prompts, seed, max_images: as for `calibrated_front`.

    Returns:
        images, in uncached ones' worth of the denoiser's work, and seconds, from one timed batch.
    """
    images, half = (
        planned_images(len(prompts), generator.rows(), SPEEDUPS, max_images),
        prompts[: -(-len(prompts) // 2)],
    )
    embeds = generator.encode(half)
    begin = time.perf_counter()
    generator.generate(embeds, range(seed, seed + len(half)))
    return images, (time.perf_counter() - begin) / len(half) * images


def weights_fitter(
    generator: ImageGenerator, prompts: Sequence[str], seeds: Sequence[int]
) -> Callable[[CacheSchedule], CacheSchedule]:
    """What fits output weights to any schedule of a generator, along one cached batch.

    Args:
        generator: makes the images.
        prompts, seeds: one each an image; all must fit into memory at once.

    Returns:
        schedule that forecasts -> the same with output weights, or itself if the sampler is not affine. The uncached
        images are made with the first.
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
        weights, _ = fitted_weights(
            generator.pipe, trajectory, runs, True, lambda: generator.generate(embeds, seeds, plain)
        )
        return schedule.replace(output_weights=weights)

    return fit


def _held_out_scores(
    generator: ImageGenerator, schedules: Sequence[CacheSchedule], prompts: Sequence[str]
) -> list[dict[str, Interval]]:
    if not prompts:
        return [{} for _ in schedules]
    embeds, seeds = generator.encode(prompts), range(HELD_OUT_SEED, HELD_OUT_SEED + len(prompts))
    references = generator.generate(embeds, seeds)
    found = []
    for schedule in schedules:
        scores = psnr(generator.generate(embeds, seeds, schedule), references)
        found.append({"psnr": Interval(float(scores.mean()), *mean_interval(scores))})
    return found
