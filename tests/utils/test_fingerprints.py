"""Everything that makes a component compute something else changes its fingerprint, and nothing else does."""

from __future__ import annotations

import copy

import pytest
import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, EulerDiscreteScheduler
from transformers import CLIPImageProcessor, T5TokenizerFast

from ecad.builtin import PIPELINE_FOLDER
from ecad.utils.fingerprints import part_fingerprint


@pytest.fixture(scope="module")
def vae() -> AutoencoderKL:
    return AutoencoderKL(block_out_channels=(8,), norm_num_groups=2, latent_channels=2)


def test_every_single_value_counts(vae: AutoencoderKL) -> None:
    before, seen = part_fingerprint(vae), set()
    for name, tensor in vae.state_dict().items():
        place = (tensor.numel() - 1) // 2 | 1  # most likely between two of the values that are sampled
        kept = tensor.flatten()[place].clone()
        tensor.view(-1)[place] = torch.nextafter(kept, torch.tensor(10.0))
        seen.add(part_fingerprint(vae))
        tensor.view(-1)[place] = kept
        assert part_fingerprint(vae) == before, name
    assert len(seen) == len(vae.state_dict())
    assert before not in seen


def test_configurations_and_classes_count_and_where_they_came_from_does_not(vae: AutoencoderKL) -> None:
    scaled = copy.deepcopy(vae)
    scaled.register_to_config(scaling_factor=0.5)
    assert part_fingerprint(scaled) != part_fingerprint(vae)
    moved = copy.deepcopy(vae)
    moved.register_to_config(_name_or_path="elsewhere")
    assert part_fingerprint(moved) == part_fingerprint(vae)
    dpm = DPMSolverMultistepScheduler()
    others = [EulerDiscreteScheduler.from_config(dpm.config), DPMSolverMultistepScheduler(use_karras_sigmas=True)]
    assert len({part_fingerprint(one) for one in (dpm, *others)}) == 3
    assert part_fingerprint(dpm) == part_fingerprint(DPMSolverMultistepScheduler(solver_order=2))
    assert part_fingerprint(CLIPImageProcessor()) != part_fingerprint(CLIPImageProcessor(do_resize=False))


def test_a_tokenizer_s_vocabulary_counts() -> None:
    tokenizer = T5TokenizerFast.from_pretrained(PIPELINE_FOLDER, subfolder="tokenizer")
    before = part_fingerprint(tokenizer)
    assert part_fingerprint(T5TokenizerFast.from_pretrained(PIPELINE_FOLDER, subfolder="tokenizer")) == before
    tokenizer.add_tokens(["<fox>"])
    assert part_fingerprint(tokenizer) != before


def test_several_parts_in_one_component_count(vae: AutoencoderKL) -> None:
    assert part_fingerprint([vae]) != part_fingerprint([vae, vae])
    assert part_fingerprint(vae.half()) != part_fingerprint(vae.float())


def test_a_tokenizers_last_call_does_not_count() -> None:
    tokenizer = T5TokenizerFast.from_pretrained(PIPELINE_FOLDER / "tokenizer")
    seen = [part_fingerprint(tokenizer)]
    for padded in (
        {},
        {"padding": "max_length", "max_length": 9, "truncation": True},
        {"padding": "longest"},
        {"truncation": True, "max_length": 4},
    ):
        tokenizer(["a fox"], **padded)
        seen.append(part_fingerprint(tokenizer))
    assert set(seen) == {"f0109231f33297e2"}  # of earlier releases
    tokenizer.add_tokens(["foxes"])
    assert part_fingerprint(tokenizer) != seen[0]
