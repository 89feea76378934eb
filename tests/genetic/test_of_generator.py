from __future__ import annotations

import numpy as np
import pytest

from ecad.errors import EcadError
from ecad.genetic.evaluator import evaluate
from ecad.genetic.of_generator import evaluator_of, problem_of
from ecad.image_generators import ImageGenerator, get_image_generator
from ecad.prompts import Prompt
from ecad.quality import Judge, psnr
from ecad.quality.fidelity import MAX_PSNR
from ecad.schedules import CacheSchedule, heuristics

PROMPTS = [Prompt("a", "a 3d crab on a blue background"), Prompt("b", "a google owl on a red background")]


@pytest.fixture(scope="module")
def generator() -> ImageGenerator:
    return get_image_generator("EmojiImageGenerator", device="cpu")


@pytest.fixture(scope="module")
def every_4(generator: ImageGenerator) -> CacheSchedule:
    problem = problem_of(generator)
    return heuristics.every_n(problem.template.sites, problem.template.num_steps, 4)


def test_the_problem_is_the_generators(generator: ImageGenerator, every_4: CacheSchedule) -> None:
    problem = problem_of(generator)
    assert problem.shape == (20, 36)
    assert 0.25 < int(problem.price(every_4.recompute[None])[0]) / problem.uncached_cost < 0.30


@pytest.mark.parametrize("quality", ["psnr", "judge"])
def test_scores_are_of_the_images_made_one_seed_after_the_other(
    generator: ImageGenerator, every_4: CacheSchedule, quality: str
) -> None:
    evaluator = evaluator_of(generator, PROMPTS, [3, 4], quality, batch_size=3)  # type: ignore[arg-type]
    uncached = problem_of(generator).template
    scores = evaluate(evaluator, [uncached, every_4])
    texts = [PROMPTS[i].text for i in (0, 0, 1, 1)]
    embeds, seeds = generator.encode(texts), [3, 4, 3, 4]

    def images(schedule: CacheSchedule | None) -> np.ndarray:
        halves = [generator.generate(embeds[at], [seeds[i] for i in at], schedule) for at in ([0, 1, 2], [3])]
        return np.concatenate(halves)

    if quality == "psnr":
        assert scores.tolist() == [[MAX_PSNR] * 4, psnr(images(every_4), images(None)).tolist()]
    else:
        assert scores[1] == pytest.approx(Judge().score(images(every_4), texts), abs=1e-3)


def test_an_unknown_quality_is_refused(generator: ImageGenerator) -> None:
    with pytest.raises(EcadError, match="'beauty' is unknown: expected one of image_reward, clip, pick, "):
        evaluator_of(generator, PROMPTS, [0], "beauty")  # type: ignore[arg-type]
