"""The problem and the evaluator of a loaded image generator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from ecad.cost.architectures import Architecture
from ecad.cost.macs import macs_table
from ecad.errors import EcadError
from ecad.genetic.evaluator import Batch, LocalEvaluator
from ecad.genetic.problem import Problem
from ecad.image_generators import ImageGenerator
from ecad.prompts import Prompt
from ecad.quality import Judge, psnr
from ecad.schedules import CacheSchedule, heuristics

Quality = Literal["psnr", "judge"]


def problem_of(generator: ImageGenerator) -> Problem:
    """All schedules of a generator at its own number of steps and image size, priced in MACs of one image."""
    return problem_for(generator.architecture, generator.steps, generator.guidance_scale)


def problem_for(architecture: Architecture, steps: int, guidance_scale: float) -> Problem:
    """`problem_of` a generator that is not loaded."""
    table = macs_table(architecture)
    config = {"height": architecture.height, "width": architecture.width, "guidance_scale": guidance_scale}
    uncached = heuristics.none(table.sites, steps)
    return Problem(CacheSchedule(uncached.recompute, table.sites, "uncached", config=config), table.price)


def evaluator_of(
    generator: ImageGenerator,
    prompts: Sequence[Prompt],
    seeds: Sequence[int],
    quality: Quality = "psnr",
    batch_size: int = 8,
) -> LocalEvaluator:
    """An evaluator that makes a generator's images and scores them.

    Args:
        generator: makes the images.
        prompts: what they are made of.
        seeds: of the images of each prompt.
        quality: "psnr", likeness to the uncached image of the same prompt and seed, in decibels (its noise is so low
            that a handful of prompts ranks schedules), or "judge", likeness to the prompt.
        batch_size: images made at once.

    Raises:
        EcadError: an unknown quality, no prompt or no seed.
    """
    if quality not in get_args(Quality):
        raise EcadError(f"quality {quality!r} is unknown: expected {' or '.join(get_args(Quality))}")
    embeds = generator.encode([prompt.text for prompt in prompts])
    place = {prompt.id: index for index, prompt in enumerate(prompts)}
    references: dict[Batch, np.ndarray] = {}

    def generate(schedule: CacheSchedule | None, items: Batch) -> np.ndarray:
        batch = embeds[[place[item.prompt.id] for item in items]]
        return generator.generate(batch, [item.seed for item in items], schedule)

    def likeness(images: np.ndarray, items: Batch) -> np.ndarray:
        # In the same batch as the candidates', so that rounding is the same, too.
        if items not in references:
            references[items] = generate(None, items)
        return psnr(images, references[items])

    if quality == "psnr":
        score = likeness
    else:
        judge = Judge(device=str(generator.pipe.device))

        def score(images: np.ndarray, items: Batch) -> np.ndarray:
            return judge.score(images, [item.prompt.text for item in items])

    return LocalEvaluator(
        generate,
        score,
        scorer=quality,
        prompts=prompts,
        seeds=seeds,
        batch_size=batch_size,
        decibels=quality == "psnr",
        settings={
            "generator": generator.name,
            "weights": generator.fingerprint(),
            "guidance_scale": generator.guidance_scale,
        },
    )
