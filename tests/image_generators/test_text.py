from __future__ import annotations

import pytest
import torch

from ecad.image_generators import ImageGenerator, get_image_generator
from ecad.image_generators.text import PromptEmbeds, pixart_inputs

PROMPTS = ["a fox", "a 3d hot pepper on an orange background", ""]


@pytest.fixture(scope="module")
def generator() -> ImageGenerator:
    return get_image_generator("EmojiImageGenerator", device="cpu")


def test_embeddings_keep_a_prompts_own_tokens_only(generator: ImageGenerator) -> None:
    tokens = [len(generator.pipe.tokenizer(prompt).input_ids) for prompt in PROMPTS]
    embeds = generator.encode(PROMPTS)
    assert [len(row) for row in embeds.prompt_embeds] == tokens
    assert embeds.negative is not None
    assert torch.equal(embeds.negative, embeds.prompt_embeds[2])


def test_trimmed_embeddings_give_the_image_of_padded_ones(generator: ImageGenerator) -> None:
    embeds = generator.encode(PROMPTS[:2])
    trimmed = generator.generate(embeds, [0, 1])
    padded = generator.pipe(
        PROMPTS[:2],
        num_inference_steps=20,
        guidance_scale=generator.guidance_scale,
        generator=[torch.Generator().manual_seed(seed) for seed in (0, 1)],
        use_resolution_binning=False,
        clean_caption=False,
        output_type="np",
    ).images
    # Masked tokens weigh exactly nothing, but a product of another length may round otherwise.
    assert abs(trimmed / 255 - padded).max() <= 1.5 / 255


def test_a_batch_is_padded_to_its_longest_prompt_and_masked() -> None:
    rows = (torch.ones(2, 3), torch.full((4, 3), 2.0))
    inputs = pixart_inputs(PromptEmbeds(rows, negative=torch.full((1, 3), 3.0)))
    assert inputs["prompt_embeds"].shape == inputs["negative_prompt_embeds"].shape == (2, 4, 3)  # type: ignore[union-attr]
    assert inputs["prompt_attention_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]  # type: ignore[union-attr]
    assert inputs["negative_prompt_attention_mask"].tolist() == [[1, 0, 0, 0]] * 2  # type: ignore[union-attr]


def test_a_long_negative_prompt_sets_the_length() -> None:
    inputs = pixart_inputs(PromptEmbeds((torch.ones(2, 3),), negative=torch.ones(5, 3)))
    assert inputs["prompt_embeds"].shape == inputs["negative_prompt_embeds"].shape == (1, 5, 3)  # type: ignore[union-attr]
    assert inputs["prompt_attention_mask"].tolist() == [[1, 1, 0, 0, 0]]  # type: ignore[union-attr]


def test_prompts_are_chosen_by_place() -> None:
    rows = tuple(torch.full((1, 1), float(i)) for i in range(4))
    chosen = PromptEmbeds(rows, pooled=rows)[[2, 0]]
    assert [row.item() for row in chosen.prompt_embeds] == [row.item() for row in chosen.pooled or ()] == [2.0, 0.0]
