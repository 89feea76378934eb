from __future__ import annotations

import numpy as np
import pytest

from ecad import ScheduleError
from ecad.cost.macs import macs_table
from ecad.errors import EcadError
from ecad.image_generators import ImageGenerator, get_image_generator
from ecad.schedules import CacheSchedule, heuristics

PROMPTS = ["a 3d crab on a blue background", "a google owl on a red background", "a twitter pear on a white background"]


@pytest.fixture(scope="module")
def generator() -> ImageGenerator:
    return get_image_generator("EmojiImageGenerator", device="cpu")


@pytest.fixture(scope="module")
def every_4(generator: ImageGenerator) -> CacheSchedule:
    return heuristics.every_n(macs_table(generator.architecture).sites, generator.steps, 4)


def test_the_same_batch_gives_the_same_images(generator: ImageGenerator, every_4: CacheSchedule) -> None:
    embeds = generator.encode(PROMPTS)
    first = generator.generate(embeds, [0, 1, 2], every_4)
    assert first.shape == (3, 64, 64, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, generator.generate(embeds, [0, 1, 2], every_4))


def test_an_image_does_not_depend_on_its_neighbours(generator: ImageGenerator) -> None:
    embeds = generator.encode(PROMPTS)
    together = generator.generate(embeds, [5, 6, 7])
    alone = generator.generate(embeds[[1]], [6])[0]
    # Another batch size may round otherwise: two grey levels at most.
    assert np.abs(together[1].astype(int) - alone).max() <= 2


def test_seeds_matter(generator: ImageGenerator) -> None:
    embeds = generator.encode([PROMPTS[0]] * 2)
    one, other = generator.generate(embeds, [0, 1])
    assert np.abs(one.astype(int) - other).mean() > 1


def test_an_all_ones_schedule_changes_nothing_and_a_sparse_one_does(
    generator: ImageGenerator, every_4: CacheSchedule
) -> None:
    embeds, uncached = generator.encode(PROMPTS[:1]), heuristics.none(every_4.sites, 20)
    bare = generator.generate(embeds, [0])
    assert np.array_equal(bare, generator.generate(embeds, [0], uncached))
    assert not np.array_equal(bare, generator.generate(embeds, [0], every_4))
    assert np.array_equal(bare, generator.generate(embeds, [0]))


def test_a_schedule_of_other_steps_is_refused_and_leaves_the_pipeline_usable(
    generator: ImageGenerator, every_4: CacheSchedule
) -> None:
    embeds = generator.encode(PROMPTS[:1])
    bare = generator.generate(embeds, [0], steps=3)
    with pytest.raises(ScheduleError, match="20 steps"):
        generator.generate(embeds, [0], every_4, steps=3)
    assert np.array_equal(bare, generator.generate(embeds, [0], steps=3))


def test_one_seed_an_image(generator: ImageGenerator) -> None:
    with pytest.raises(EcadError, match="expected 1 seeds, found 2"):
        generator.generate(generator.encode(PROMPTS[:1]), [0, 1])


def test_the_fingerprint_is_of_the_weights(generator: ImageGenerator) -> None:
    before = generator.fingerprint()
    assert before == get_image_generator("EmojiImageGenerator", device="cpu").fingerprint()
    weight = generator.pipe.transformer.proj_out.bias
    kept = weight.detach().clone()
    weight.data[0] += 1
    assert generator.fingerprint() != before
    weight.data.copy_(kept)
    assert generator.fingerprint() == before
