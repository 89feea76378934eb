from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ecad.image_generators import ImageGenerator, get_image_generator
from ecad.jobs.encode import by_category, embed, embedding_settings, megabatches, num_shards, numbered
from ecad.prompts import Prompt, read_prompts
from ecad.prompts.store import find_stored, load_stored, stores_to_write

PROMPTS = [Prompt(f"{i:04d}", text) for i, text in enumerate(["a fox", "a 3d hot pepper", "an owl"])]


@pytest.fixture(scope="module")
def generator() -> ImageGenerator:
    return get_image_generator("EmojiImageGenerator", device="cpu", only="text")


def test_megabatches_take_any_count_and_numbers_go_on_through_them(shared_data: Path) -> None:
    captions = read_prompts(shared_data / "prompts" / "COCO_caption_prompts_30k.txt")
    folders = dict(megabatches(numbered(captions, seed=5, seed_step=2)))
    assert list(folders) == [f"megabatch_{i}" for i in range(11)]
    assert [len(entries) for entries in folders.values()] == [3000] * 10 + [3]
    first = folders["megabatch_1"][0]
    assert (first.stem, first.prompt, first.seed) == ("3000__prompt_seed-6005", captions[3000], 6005)


def test_categories_become_folders_that_any_file_system_takes() -> None:
    prompts = [Prompt("b7", "a pie", "food"), Prompt("c8", "a fox", "a/b"), Prompt("d9", "a cake", "food")]
    folders = dict(by_category(prompts, seed=3))
    assert {name: [entry.stem for entry in entries] for name, entries in folders.items()} == {
        "food": ["b7", "d9"],
        "a%2Fb": ["c8"],
    }
    assert {entry.seed for entries in folders.values() for entry in entries} == {3}


def test_stored_embeddings_are_what_the_encoder_gave_at_the_denoisers_precision(
    generator: ImageGenerator, tmp_path: Path
) -> None:
    with stores_to_write(tmp_path, [("x", numbered(PROMPTS))], embedding_settings(generator), 2) as stores:
        assert list(embed(generator, tmp_path, stores)) == [0, 0]
        assert num_shards(stores) == 2
    found = find_stored(tmp_path)["x"]
    assert found[0].settings["dtype"] == "float32"
    stored, fresh = load_stored(found[:2]), generator.encode([prompt.text for prompt in PROMPTS[:2]])
    assert all(torch.equal(a, b) for a, b in zip(stored.prompt_embeds, fresh.prompt_embeds, strict=True))
    assert stored.negative is not None
    assert fresh.negative is not None
    assert torch.equal(stored.negative, fresh.negative)


def test_the_negative_prompt_is_the_same_to_the_bit_in_every_batch(generator: ImageGenerator) -> None:
    negatives = [generator.encode(["a fox"] * count).negative for count in (1, 3)]
    assert torch.equal(negatives[0], negatives[1])  # type: ignore[arg-type]


def test_prompts_that_are_cut_are_counted(generator: ImageGenerator, tmp_path: Path) -> None:
    long = [Prompt("0", "a fox " * 200), Prompt("1", "a fox")]
    with stores_to_write(tmp_path, [(".", numbered(long))], embedding_settings(generator), 2) as stores:
        assert list(embed(generator, tmp_path, stores)) == [1]
    assert len(load_stored(find_stored(tmp_path)["."][:1]).prompt_embeds[0]) == generator.max_tokens


def test_only_what_is_needed_is_loaded(generator: ImageGenerator) -> None:
    assert generator.pipe.transformer is None
    assert generator.pipe.vae is None
    for_images = get_image_generator("EmojiImageGenerator", device="cpu", only="images")
    assert for_images.pipe.text_encoder is None
    assert for_images.dtype == generator.dtype == torch.float32
    assert for_images.architecture.height == generator.architecture.height
