from __future__ import annotations

import pytest
import torch

from ecad.errors import EcadError
from ecad.image_generators import ImageGenerator, get_image_generator
from ecad.image_generators.text_inputs import flux_inputs, pixart_inputs
from ecad.prompts.embeds import PromptEmbeds

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


@pytest.mark.parametrize("chosen", [[0], [1, 2], [0, 1, 2]])
def test_trimmed_embeddings_give_the_image_of_padded_ones_bit_for_bit(
    generator: ImageGenerator, chosen: list[int]
) -> None:
    texts = [[*PROMPTS[:2], "a " * 40][i] for i in chosen]
    embeds, mask, negative, negative_mask = generator.pipe.encode_prompt(texts, max_sequence_length=120)
    assert embeds.shape[1] == 120
    rows = tuple(row[: int(keep.sum())] for row, keep in zip(embeds, mask, strict=True))
    trimmed = pixart_inputs(PromptEmbeds(rows, negative=negative[0, : int(negative_mask[0].sum())]))
    padded = {
        "prompt_embeds": embeds,
        "prompt_attention_mask": mask,
        "negative_prompt_embeds": negative,
        "negative_prompt_attention_mask": negative_mask,
        "negative_prompt": None,
    }
    assert trimmed["prompt_embeds"].shape[1] < 120  # type: ignore[union-attr]
    images = [
        generator.pipe(
            **inputs,
            num_inference_steps=3,
            generator=[torch.Generator().manual_seed(seed) for seed in chosen],
            use_resolution_binning=False,
            output_type="np",
        ).images
        for inputs in (trimmed, padded)
    ]
    assert (images[0] == images[1]).all()


def test_a_batch_is_padded_to_32_tokens_and_masked() -> None:
    rows = (torch.ones(2, 3), torch.full((4, 3), 2.0))
    inputs = pixart_inputs(PromptEmbeds(rows, negative=torch.full((1, 3), 3.0)))
    assert inputs["prompt_embeds"].shape == inputs["negative_prompt_embeds"].shape == (2, 32, 3)  # type: ignore[union-attr]
    assert inputs["prompt_attention_mask"].tolist() == [[1, 1] + [0] * 30, [1] * 4 + [0] * 28]  # type: ignore[union-attr]
    assert inputs["negative_prompt_attention_mask"].tolist() == [[1] + [0] * 31] * 2  # type: ignore[union-attr]


def test_a_long_negative_prompt_sets_the_length() -> None:
    inputs = pixart_inputs(PromptEmbeds((torch.ones(2, 3),), negative=torch.ones(33, 3)))
    assert inputs["prompt_embeds"].shape == inputs["negative_prompt_embeds"].shape == (1, 64, 3)  # type: ignore[union-attr]
    assert inputs["prompt_attention_mask"].tolist() == [[1, 1] + [0] * 62]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("inputs", "told"), [(pixart_inputs, "no negative prompt"), (flux_inputs, "no pooled embeddings")]
)
def test_embeddings_of_the_other_family_are_refused(inputs: object, told: str) -> None:
    with pytest.raises(EcadError, match=told):
        inputs(PromptEmbeds((torch.ones(2, 3),)))  # type: ignore[operator]


def test_prompts_are_chosen_by_place() -> None:
    rows = tuple(torch.full((1, 1), float(i)) for i in range(4))
    chosen = PromptEmbeds(rows, pooled=rows)[[2, 0]]
    assert [row.item() for row in chosen.prompt_embeds] == [row.item() for row in chosen.pooled or ()] == [2.0, 0.0]
