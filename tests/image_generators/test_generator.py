from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ecad import ScheduleError
from ecad.cost.macs import macs_table
from ecad.errors import EcadError, NotFiniteError
from ecad.image_generators import ImageGenerator, get_image_generator
from ecad.schedules import CacheSchedule, heuristics

STEPS = 6
PROMPTS = ["a 3d crab on a blue background", "a google owl on a red background", "a twitter pear on a white background"]


@pytest.fixture(scope="module")
def generator() -> ImageGenerator:
    return replace(get_image_generator("EmojiImageGenerator", device="cpu"), steps=STEPS)


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
    embeds, uncached = generator.encode(PROMPTS[:1]), heuristics.none(every_4.sites, STEPS)
    bare = generator.generate(embeds, [0])
    assert np.array_equal(bare, generator.generate(embeds, [0], uncached))
    assert not np.array_equal(bare, generator.generate(embeds, [0], every_4))
    assert np.array_equal(bare, generator.generate(embeds, [0]))


def test_output_products_are_of_what_the_sampler_is_given_for_uncached_images(generator: ImageGenerator) -> None:
    embeds, outputs = generator.encode(PROMPTS), []
    handle = generator.pipe.transformer.register_forward_hook(lambda *call: outputs.append(call[-1][0].double()))
    bare = generator.generate(embeds, [0, 1, 2])
    handle.remove()
    found = generator.output_products(embeds, [0, 1, 2])
    assert np.array_equal(bare, generator.generate(embeds, [0, 1, 2]))
    without, under = torch.stack(outputs)[:, :, :4].chunk(2, dim=1)
    given = (without + generator.guidance_scale * (under - without)).flatten(1)
    table = given @ given.T
    np.testing.assert_allclose(found, table * (STEPS / table.trace()), atol=1e-6)  # type: ignore[arg-type]


def test_a_schedule_of_other_steps_is_refused_and_leaves_the_pipeline_usable(
    generator: ImageGenerator, every_4: CacheSchedule
) -> None:
    embeds = generator.encode(PROMPTS[:1])
    bare = generator.generate(embeds, [0], steps=3)
    with pytest.raises(ScheduleError, match=f"{STEPS} steps"):
        generator.generate(embeds, [0], every_4, steps=3)
    assert np.array_equal(bare, generator.generate(embeds, [0], steps=3))


def test_one_seed_an_image(generator: ImageGenerator) -> None:
    with pytest.raises(EcadError, match="expected 1 seeds, found 2"):
        generator.generate(generator.encode(PROMPTS[:1]), [0, 1])


def test_a_batch_without_room_is_made_in_halves(generator: ImageGenerator, every_4: CacheSchedule) -> None:
    texts, seeds = [*PROMPTS, "a pear"], [0, 1, 2, 3]
    embeds = generator.encode(texts)
    pairs = [generator.generate(embeds[half], half, every_4) for half in ([0, 1], [2, 3])]

    def full(module: torch.nn.Module, _: object, inputs: dict[str, torch.Tensor]) -> None:
        if len(next(iter(inputs.values()))) > 2 * 2:  # guided: twice as many as images
            torch.empty(1 << 60, dtype=torch.uint8)

    hook = generator.pipe.transformer.register_forward_pre_hook(full, with_kwargs=True)
    try:
        with pytest.warns(RuntimeWarning, match="images: not enough memory for a batch size of 4: continuing with 2"):
            found = generator.generate(embeds, seeds, every_4)
    finally:
        hook.remove()
        generator.making.most = None
    assert np.array_equal(found, np.concatenate(pairs))


def test_prompts_are_encoded_in_halves_where_there_is_no_room(generator: ImageGenerator) -> None:
    whole = generator.encode(PROMPTS)
    generator.encoding.most = 2
    try:
        halves = generator.encode(PROMPTS)
    finally:
        generator.encoding.most = None
    assert [len(row) for row in halves.prompt_embeds] == [len(row) for row in whole.prompt_embeds]
    for one, other in zip(halves.prompt_embeds, whole.prompt_embeds, strict=True):
        torch.testing.assert_close(one, other)
    assert halves.negative is not None
    assert torch.equal(halves.negative, whole.negative)


def test_blank_images_are_told(generator: ImageGenerator) -> None:
    embeds = generator.encode(PROMPTS[:1])
    weight, bias = generator.pipe.vae.decoder.conv_out.weight, generator.pipe.vae.decoder.conv_out.bias
    kept = weight.detach().clone(), bias.detach().clone()
    try:
        weight.data.zero_()
        bias.data.fill_(-9)
        with pytest.warns(RuntimeWarning, match="EmojiImageGenerator: some images are one colour throughout"):
            assert not generator.generate(embeds, [0], steps=2).any()
        weight.data.fill_(float("nan"))
        with pytest.raises(NotFiniteError, match=r"EmojiImageGenerator without a schedule made images with NaN"):
            generator.generate(embeds, [0], steps=2)
    finally:
        weight.data.copy_(kept[0])
        bias.data.copy_(kept[1])


def test_the_fingerprint_is_of_the_weights(generator: ImageGenerator) -> None:
    before = generator.fingerprint()
    assert before == get_image_generator("EmojiImageGenerator", device="cpu").fingerprint()
    weight = generator.pipe.transformer.proj_out.bias
    kept = weight.detach().clone()
    weight.data[0] += 1
    assert generator.fingerprint() != before
    weight.data.copy_(kept)
    assert generator.fingerprint() == before
