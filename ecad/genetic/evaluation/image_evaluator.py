"""The problem and the evaluator of a loaded image generator."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from ecad.errors import EcadError
from ecad.genetic.evaluation.evaluator import LocalEvaluator
from ecad.genetic.study.items import Batch, Item, all_items
from ecad.image_generators import ImageGenerator
from ecad.prompts import Prompt
from ecad.quality.scorers import Scorer, get_scorer, quality_names
from ecad.schedules import CacheSchedule
from ecad.utils.versions import PARTS


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
            PARTS: {**generator.text_parts_fingerprints(), **generator.parts()},
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
