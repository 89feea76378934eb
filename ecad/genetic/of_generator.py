"""The problem and the evaluator of a loaded image generator."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ecad.cost.architectures import Architecture
from ecad.cost.macs import macs_table
from ecad.cost.memory import sites_within
from ecad.cost.table import CostTable
from ecad.errors import EcadError
from ecad.files import parse_json, write_atomic
from ecad.genetic.evaluator import Batch, Item, LocalEvaluator, all_items
from ecad.genetic.problem import Problem
from ecad.image_generators import ImageGenerator
from ecad.image_generators.time_table import time_table
from ecad.image_generators.timing import device_name
from ecad.prompts import Prompt
from ecad.quality.scorers import Scorer, get_scorer, quality_names
from ecad.schedules import CacheSchedule, heuristics


def problem_of(generator: ImageGenerator) -> Problem:
    """All schedules of a generator at its own number of steps and image size, priced in MACs of one image."""
    return problem_for(generator.architecture, generator.steps, generator.guidance_scale)


def problem_for(architecture: Architecture, steps: int, guidance_scale: float | None) -> Problem:
    """`problem_of` a generator that is not loaded."""
    table = macs_table(architecture)
    config: dict[str, Any] = {"height": architecture.height, "width": architecture.width}
    if guidance_scale is not None:
        config["guidance_scale"] = guidance_scale
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
            known = parse_json(file.read_bytes())
            table, expected = CostTable.from_json(known["table"]), known["device"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EcadError(f"{file}: expected a table of times, found {error}; search in another folder") from error
        if expected != device:
            raise EcadError(f"{file}: times of another device: expected {expected}, found {device}")
    else:
        table = time_table(generator, generator.encode([prompt.text for prompt in prompts]))
        write_atomic(file, json.dumps({"device": device, "table": table.to_json()}) + "\n")
    return replace(problem_of(generator), price=table.price, unit="ns")


def within_memory(problem: Problem, architecture: Architecture, max_cached_bytes: int | None) -> Problem:
    """The same problem, its schedules keeping at most so many bytes of one image; raises as `sites_within` does."""
    if max_cached_bytes is None:
        return problem
    return replace(problem, reusable=sites_within(max_cached_bytes, architecture, problem.forecast != "never"))


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
            `quality_names()`, such as "image_reward"; or several, such as "image_reward+clip": the sum of what each
            gains over the uncached image of the same prompt and seed, in standard deviations of the uncached images.
        batch_size: images made at once.

    Raises:
        EcadError: an unknown quality, one whose weights are not found, several of which one compares images or finds
            all uncached ones alike, no prompt or no seed.
    """
    scorers = _scorers(quality, str(generator.pipe.device))
    embeds = generator.encode([prompt.text for prompt in prompts])
    place = {prompt.id: index for index, prompt in enumerate(prompts)}

    def generate(schedule: CacheSchedule | None, items: Batch) -> np.ndarray:
        batch = embeds[[place[item.prompt.id] for item in items]]
        return generator.generate(batch, [item.seed for item in items], schedule)

    def products_of(items: Batch) -> np.ndarray | None:
        return generator.output_products(
            embeds[[place[item.prompt.id] for item in items]], [item.seed for item in items]
        )

    @cache
    def uncached(items: Batch) -> np.ndarray:
        # In the same batch as the candidates', so that rounding is the same, too.
        return generate(None, items)

    def score(images: np.ndarray, items: Batch) -> np.ndarray:
        references = uncached(items) if scorers[0].compares else None
        return scorers[0].score(images, [item.prompt.text for item in items], references)

    def scores(images: np.ndarray, items: Batch) -> np.ndarray:
        return np.array([scorer.score(images, [item.prompt.text for item in items], None) for scorer in scorers])

    @cache
    def uncached_scores() -> dict[Item, np.ndarray]:
        items = all_items(prompts, seeds)
        batches = [items[start : start + batch_size] for start in range(0, len(items), batch_size)]
        found = np.concatenate([scores(generate(None, batch), batch) for batch in batches], axis=1)
        return dict(zip(items, found.T, strict=True))

    def gain(images: np.ndarray, items: Batch) -> np.ndarray:
        known = uncached_scores()
        spread = np.std(list(known.values()), axis=0)
        if not spread.all():
            name = scorers[int(np.argmin(spread))].name
            raise EcadError(
                f"quality {quality!r}: {name} finds all {len(known)} uncached images alike: give more prompts"
            )
        gained = scores(images, items) - np.array([known[item] for item in items]).T
        return np.asarray((gained / spread[:, None]).sum(axis=0))

    versions = [scorer.version for scorer in scorers if scorer.version]
    return LocalEvaluator(
        generate,
        score if len(scorers) == 1 else gain,
        scorer=quality,
        prompts=prompts,
        seeds=seeds,
        batch_size=batch_size,
        decibels=quality == "psnr",
        settings={
            "generator": generator.name,
            "weights": generator.fingerprint(),
            "guidance_scale": generator.guidance_scale,
            **({"call": generator.call} if generator.call else {}),
            **({"scorer": " + ".join(versions)} if versions else {}),
        },
        products_of=products_of,
    )


def _scorers(quality: str, device: str) -> list[Scorer]:
    """The scorers that a quality is made of; raises EcadError if they are unknown or do not go together."""
    names = quality.split("+")
    for name in names:
        if name not in quality_names():
            expected = f"one of {', '.join(quality_names())}, or several joined by +"
            raise EcadError(f"quality {name!r} is unknown: expected {expected}")
    scorers = [get_scorer(name, device=device) for name in names]
    if len(names) > 1 and any(scorer.compares for scorer in scorers):
        alone = next(scorer.name for scorer in scorers if scorer.compares)
        raise EcadError(f"quality {quality!r}: {alone} has no value for the uncached image itself: expected it alone")
    return scorers
