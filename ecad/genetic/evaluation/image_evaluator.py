"""The evaluator of a loaded image generator."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from ecad.calibration.of_generator import outputs_of
from ecad.calibration.step_choice import Outputs
from ecad.errors import EcadError
from ecad.genetic.evaluation.evaluator import REFERENCE_STEPS, LocalEvaluator
from ecad.genetic.study.items import Batch, Item, all_items
from ecad.image_generators import ImageGenerator
from ecad.prompts import Prompt
from ecad.quality.names import check_quality
from ecad.quality.scorers import get_scorer
from ecad.quality.video import by_frame
from ecad.schedules import CacheSchedule
from ecad.utils.versions import PARTS, SCORER_PARTS


def evaluator_of(
    generator: ImageGenerator,
    prompts: Sequence[Prompt],
    seeds: Sequence[int],
    quality: str = "psnr",
    batch_size: int = 8,
    reference_steps: int | None = None,
) -> LocalEvaluator:
    """An evaluator that makes a generator's images and scores them.

    Args:
        generator: makes the images.
        prompts: of the images.
        seeds: of the images of each prompt.
        quality: a scorer for which higher is better: "psnr", the similarity to the uncached image of the same prompt
            and seed in decibels (low noise: a few prompts rank schedules); or another of `quality_names()`,
            such as "image_reward"; or several, such as "image_reward+clip": the sum of their gains over the uncached
            image of the same prompt and seed, in standard deviations of the uncached images.
        batch_size: images per batch.
        reference_steps: number of steps of the uncached images that scores are relative to; None for the generator's.

    Raises:
        EcadError: the quality is unknown, its weights are not found, several scorers are given of which one compares
            images, or there is no prompt or no seed.
    """
    images = _ScoredImages(generator, prompts, seeds, quality, batch_size, reference_steps)
    return LocalEvaluator(
        images.generate,
        images.score if len(images.scorers) == 1 else images.gain,
        scorer=quality,
        prompts=prompts,
        seeds=seeds,
        batch_size=batch_size,
        decibels=quality == "psnr",
        settings=images.settings(),
        outputs_of=images.outputs,
    )


class _ScoredImages:
    """Makes and scores images, and keeps the uncached ones that scores are relative to; arguments as `evaluator_of`."""

    def __init__(
        self,
        generator: ImageGenerator,
        prompts: Sequence[Prompt],
        seeds: Sequence[int],
        quality: str,
        batch_size: int,
        reference_steps: int | None,
    ) -> None:
        device, frames = str(generator.pipe.device), generator.architecture.frames
        self.scorers = [by_frame(get_scorer(name, device=device), frames) for name in check_quality(quality)]
        self._generator, self._quality, self._batch_size = generator, quality, batch_size
        self._reference_steps = reference_steps
        self._items = all_items(prompts, seeds)
        self._embeds = generator.encode([prompt.text for prompt in prompts])
        self._place = {prompt.id: index for index, prompt in enumerate(prompts)}
        self._uncached: dict[Batch, np.ndarray] = {}

    def settings(self) -> dict[str, object]:
        """What scores depend on besides prompts, seeds and batch size."""
        generator, versions = self._generator, [scorer.version for scorer in self.scorers if scorer.version]
        parts = {scorer.name: dict(scorer.parts) for scorer in self.scorers if scorer.parts}
        return {
            "generator": generator.name,
            "weights": generator.fingerprint(),
            PARTS: {**generator.text_parts_fingerprints(), **generator.parts()},
            "guidance_scale": generator.guidance_scale,
            **({"call": found} if (found := generator.call_settings()) else {}),
            **({"scorer": " + ".join(versions)} if versions else {}),
            **({SCORER_PARTS: parts} if parts else {}),
            **({} if self._reference_steps is None else {REFERENCE_STEPS: self._reference_steps}),
        }

    def generate(self, schedule: CacheSchedule | None, items: Batch) -> np.ndarray:
        """Images under a schedule, uint8 (items, height, width, 3); None for the uncached ones of the reference."""
        batch = self._embeds[[self._place[item.prompt.id] for item in items]]
        steps = self._reference_steps if schedule is None else None
        return self._generator.generate(batch, [item.seed for item in items], schedule, steps=steps)

    def outputs(self, items: Batch) -> Outputs | None:
        """What the outputs of uncached images tell."""
        batch = self._embeds[[self._place[item.prompt.id] for item in items]]
        return outputs_of(self._generator, batch, [item.seed for item in items])

    def score(self, images: np.ndarray, items: Batch) -> np.ndarray:
        """The scores of the only scorer, float (items,)."""
        [scorer] = self.scorers
        references = self._references(items) if scorer.compares else None
        return scorer.score(images, [item.prompt.text for item in items], references)

    def gain(self, images: np.ndarray, items: Batch) -> np.ndarray:
        """The sum over scorers of the gain over the uncached image, in standard deviations, float64 (items,)."""
        uncached = self._uncached_scores
        spread = np.std(list(uncached.values()), axis=0)
        if not spread.all():
            name = self.scorers[int(np.argmin(spread))].name
            raise EcadError(
                f"quality {self._quality!r}: {name} gives all {len(uncached)} uncached images the same score: use more "
                "prompts"
            )
        gained = self._scores(images, items) - np.array([uncached[item] for item in items]).T
        return np.asarray((gained / spread[:, None]).sum(axis=0))

    def _references(self, items: Batch) -> np.ndarray:
        # Uncached images of the same batch as the candidate's, so that both are rounded alike.
        if items not in self._uncached:
            self._uncached[items] = self.generate(None, items)
        return self._uncached[items]

    def _scores(self, images: np.ndarray, items: Batch) -> np.ndarray:
        texts = [item.prompt.text for item in items]
        return np.array([scorer.score(images, texts, None) for scorer in self.scorers])

    @cached_property
    def _uncached_scores(self) -> dict[Item, np.ndarray]:
        starts = range(0, len(self._items), self._batch_size)
        batches = [self._items[start : start + self._batch_size] for start in starts]
        found = np.concatenate([self._scores(self.generate(None, batch), batch) for batch in batches], axis=1)
        return dict(zip(self._items, found.T, strict=True))
