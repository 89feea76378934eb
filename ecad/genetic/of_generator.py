"""The problem and the evaluator of a loaded image generator."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ecad.cost.architectures import Architecture
from ecad.cost.macs import macs_table
from ecad.cost.table import CostTable
from ecad.errors import EcadError
from ecad.files import write_atomic
from ecad.genetic.evaluator import Batch, LocalEvaluator
from ecad.genetic.problem import Problem
from ecad.image_generators import ImageGenerator
from ecad.image_generators.time_table import time_table
from ecad.image_generators.timing import device_name
from ecad.prompts import Prompt
from ecad.quality.scorers import get_scorer, quality_names
from ecad.schedules import CacheSchedule, heuristics


def problem_of(generator: ImageGenerator) -> Problem:
    """All schedules of a generator at its own number of steps and image size, priced in MACs of one image."""
    return problem_for(generator.architecture, generator.steps, generator.guidance_scale)


def problem_for(architecture: Architecture, steps: int, guidance_scale: float) -> Problem:
    """`problem_of` a generator that is not loaded."""
    table = macs_table(architecture)
    config = {"height": architecture.height, "width": architecture.width, "guidance_scale": guidance_scale}
    uncached = heuristics.none(table.sites, steps)
    return Problem(CacheSchedule(uncached.recompute, table.sites, "uncached", config=config), table.price)


def latency_problem(generator: ImageGenerator, prompts: Sequence[Prompt], file: Path) -> Problem:
    """`problem_of`, priced in nanoseconds of one image on the generator's device.

    Args:
        generator: what is timed.
        prompts: a batch of them.
        file: that keeps the times: a search that goes on must not have other prices.

    Raises:
        EcadError: the file is damaged, or its times are of another device.
    """
    device = device_name(generator.pipe.device)
    if file.exists():
        try:
            known = json.loads(file.read_bytes())
            table, expected = CostTable.from_json(known["table"]), known["device"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EcadError(f"{file}: expected a table of times, found {error}; search in another folder") from error
        if expected != device:
            raise EcadError(f"{file}: times of another device: expected {expected}, found {device}")
    else:
        table = time_table(generator, generator.encode([prompt.text for prompt in prompts]))
        write_atomic(file, json.dumps({"device": device, "table": table.to_json()}) + "\n")
    return replace(problem_of(generator), price=table.price, unit="ns")


def evaluator_of(
    generator: ImageGenerator,
    prompts: Sequence[Prompt],
    seeds: Sequence[int],
    quality: str = "psnr",
    batch_size: int = 8,
) -> LocalEvaluator:
    """An evaluator that makes a generator's images and scores them.

    Args:
        generator: makes the images.
        prompts: what they are made of.
        seeds: of the images of each prompt.
        quality: a scorer that rises as images get better: "psnr", likeness to the uncached image of the same prompt and
            seed, in decibels (its noise is so low that a handful of prompts ranks schedules); or another of
            `quality_names()`, such as "image_reward".
        batch_size: images made at once.

    Raises:
        EcadError: an unknown quality, one whose weights are not found, no prompt or no seed.
    """
    if quality not in quality_names():
        raise EcadError(f"quality {quality!r} is unknown: expected one of {', '.join(quality_names())}")
    scorer = get_scorer(quality, device=str(generator.pipe.device))
    embeds = generator.encode([prompt.text for prompt in prompts])
    place = {prompt.id: index for index, prompt in enumerate(prompts)}
    references: dict[Batch, np.ndarray] = {}

    def generate(schedule: CacheSchedule | None, items: Batch) -> np.ndarray:
        batch = embeds[[place[item.prompt.id] for item in items]]
        return generator.generate(batch, [item.seed for item in items], schedule)

    def score(images: np.ndarray, items: Batch) -> np.ndarray:
        # In the same batch as the candidates', so that rounding is the same, too.
        if scorer.compares and items not in references:
            references[items] = generate(None, items)
        return scorer.score(images, [item.prompt.text for item in items], references.get(items))

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
            **({"scorer": scorer.version} if scorer.version else {}),
        },
    )
