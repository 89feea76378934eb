from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ecad.cost.memory import kept_bytes_of_many
from ecad.errors import EcadError
from ecad.genetic.algorithms.surrogate_search import SurrogateSearch
from ecad.genetic.evaluation import image_evaluator
from ecad.genetic.evaluation.evaluator import evaluate
from ecad.genetic.evaluation.image_evaluator import evaluator_of
from ecad.genetic.evaluation.problems import problem_of, within_memory
from ecad.genetic.study.items import all_items
from ecad.image_generators import ImageGenerator, get_image_generator
from ecad.prompts import Prompt
from ecad.quality import Judge, psnr
from ecad.quality.fidelity import MAX_PSNR
from ecad.quality.scorers import Scorer
from ecad.schedules import CacheSchedule, heuristics

PROMPTS = [Prompt("a", "a 3d crab on a blue background"), Prompt("b", "a google owl on a red background")]


@pytest.fixture(scope="module")
def generator() -> ImageGenerator:
    """In a few steps: what is said here holds for any number."""
    return replace(get_image_generator("EmojiImageGenerator", device="cpu"), steps=4)


@pytest.fixture(scope="module")
def every_3(generator: ImageGenerator) -> CacheSchedule:
    problem = problem_of(generator)
    return heuristics.every_n(problem.template.sites, problem.template.num_steps, 3)


def test_the_problem_is_the_generators(generator: ImageGenerator) -> None:
    problem = problem_of(replace(generator, steps=20))
    assert problem.shape == (20, 36)
    every_4 = heuristics.every_n(problem.template.sites, 20, 4)
    assert 0.25 < int(problem.costs(every_4.recompute[None])[0]) / problem.uncached_cost < 0.30


@pytest.mark.parametrize("quality", ["psnr", "judge"])
def test_scores_are_of_the_images_made_one_seed_after_the_other(
    generator: ImageGenerator, every_3: CacheSchedule, quality: str
) -> None:
    evaluator = evaluator_of(generator, PROMPTS, [3, 4], quality, batch_size=3)  # type: ignore[arg-type]
    uncached = problem_of(generator).template
    scores = evaluate(evaluator, [uncached, every_3])
    texts = [PROMPTS[i].text for i in (0, 0, 1, 1)]
    embeds, seeds = generator.encode(texts), [3, 4, 3, 4]

    def images(schedule: CacheSchedule | None) -> np.ndarray:
        halves = [generator.generate(embeds[at], [seeds[i] for i in at], schedule) for at in ([0, 1, 2], [3])]
        return np.concatenate(halves)

    if quality == "psnr":
        assert scores.tolist() == [[MAX_PSNR] * 4, psnr(images(every_3), images(None)).tolist()]
    else:
        assert scores[1] == pytest.approx(Judge().score(images(every_3), texts), abs=1e-3)


def test_several_scorers_add_up_what_each_gains_in_spreads_of_the_uncached_images(
    generator: ImageGenerator, every_3: CacheSchedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    measures = {"red": 0, "blue": 2}

    def scorer(name: str, **_: str) -> Scorer:
        return Scorer(name, f"{name} 1", False, lambda images, *_: images[..., measures[name]].mean(axis=(1, 2)))

    monkeypatch.setattr("ecad.quality.names.quality_names", lambda: list(measures))
    monkeypatch.setattr(image_evaluator, "get_scorer", scorer)
    evaluator = evaluator_of(generator, PROMPTS, [3, 4], "red+blue", batch_size=3)
    uncached = problem_of(generator).template
    found = evaluate(evaluator, [uncached, every_3])

    def images(schedule: CacheSchedule | None) -> np.ndarray:
        items = all_items(PROMPTS, [3, 4])
        return np.concatenate([evaluator.generate(schedule, items[at]) for at in (slice(3), slice(3, 4))])

    base, cached = (images(one)[..., [0, 2]].mean(axis=(1, 2)) for one in (uncached, every_3))
    assert found[0].tolist() == [0.0] * 4
    assert found[1] == pytest.approx(((cached - base) / base.std(axis=0)).sum(axis=1), rel=1e-12)
    assert evaluator.settings["scorer"] == "red 1 + blue 1"
    assert not evaluator.decibels
    alone = evaluator_of(generator, PROMPTS[:1], [3], "red+blue")
    with pytest.raises(EcadError, match="red gives all 1 uncached images the same score: use more"):
        evaluate(alone, [every_3])


def test_a_comparison_has_no_gain_over_the_uncached_image(generator: ImageGenerator) -> None:
    with pytest.raises(EcadError, match="psnr compares with the uncached image and cannot be combined"):
        evaluator_of(generator, PROMPTS, [0], "judge+psnr")


def test_what_it_knows_of_outputs_is_of_its_first_batch(generator: ImageGenerator) -> None:
    found = evaluator_of(generator, PROMPTS, [3, 4], batch_size=3).outputs()
    texts = [PROMPTS[i].text for i in (0, 0, 1)]
    assert found is not None
    assert len(found.coefficients) == generator.rows()
    assert np.array_equal(found.products, generator.output_products(generator.encode(texts), [3, 4, 3]))  # type: ignore[arg-type]


@pytest.mark.parametrize("forecast", [False, True])
def test_within_a_memory_limit_no_schedule_of_a_search_keeps_more(generator: ImageGenerator, forecast: bool) -> None:
    free = replace(problem_of(replace(generator, steps=20)), forecast="always" if forecast else "never")
    random = np.random.default_rng(0).random((200, *free.shape)) < 0.5
    most = kept_bytes_of_many(free.plans(random), free.template.sites, generator.architecture, forecast)
    limit = int(most.min()) // 2
    limited = within_memory(free, generator.architecture, limit)
    kept = kept_bytes_of_many(limited.plans(random), free.template.sites, generator.architecture, forecast)
    assert limit * 0.8 < kept.max() <= limit
    algorithm = SurrogateSearch(limited, 12, 0, random[:0], decibels=True)
    for _ in range(3):
        bits = algorithm.ask()
        assert len(bits)
        kept = kept_bytes_of_many(bits, free.template.sites, generator.architecture, forecast)
        assert 0 < kept.max() <= limit
        algorithm.tell(limited.costs(bits), bits.mean(axis=(1, 2)))
    assert limited.settings != free.settings
    with pytest.raises(EcadError, match=r"memory limit of 10 bytes allows no reuse: .* needs [0-9,]+ bytes"):
        within_memory(free, generator.architecture, 10)


def test_an_unknown_quality_is_refused(generator: ImageGenerator) -> None:
    with pytest.raises(EcadError, match="'beauty' is unknown: expected one of image_reward, clip, pick, "):
        evaluator_of(generator, PROMPTS, [0], "beauty")  # type: ignore[arg-type]


def test_videos_are_scored_frame_by_frame(generator: ImageGenerator, every_3: CacheSchedule) -> None:
    # The upper and the lower half of each image, as a video of two frames.
    of_two = replace(generator.architecture, transformer={**generator.architecture.transformer, "video_length": 2})
    halves = replace(generator, architecture=of_two)
    evaluator = evaluator_of(halves, PROMPTS, [3], "psnr", batch_size=2)
    [scores] = evaluate(evaluator, [every_3])
    embeds = generator.encode([prompt.text for prompt in PROMPTS])
    frames = [generator.generate(embeds, [3, 3], one).reshape(4, 32, 64, 3) for one in (every_3, None)]
    assert scores == pytest.approx(psnr(*frames).reshape(2, 2).mean(axis=1))
    assert evaluator.settings["scorer"] == "frames 2"
    assert "scorer" not in evaluator_of(generator, PROMPTS, [3], "psnr").settings
