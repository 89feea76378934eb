"""A search of a real pipeline, tiny and random: PixArt through the runtime, priced by the cost table."""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
import torch

from ecad.cost.architectures import Architecture
from ecad.cost.macs import count_macs, macs_table
from ecad.genetic import LocalEvaluator, Problem, Study, evaluate
from ecad.genetic.search import search
from ecad.prompts import Prompt
from ecad.runtime.cache import cached, enable_cache
from ecad.schedules import CacheSchedule, heuristics, pixart_sites
from ecad.schedules.plan_key import plan_key
from ecad.utils.pareto import pareto

STEPS = 4


@pytest.fixture(scope="module")
def pipe() -> diffusers.PixArtAlphaPipeline:
    transformer = diffusers.PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=1,
        cross_attention_dim=16,
        caption_channels=12,
        sample_size=8,
        norm_num_groups=1,
        use_additional_conditions=False,
    )
    generator = torch.Generator().manual_seed(0)
    for parameter in transformer.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    made = diffusers.PixArtAlphaPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=None,
        transformer=transformer.eval(),
        scheduler=diffusers.DPMSolverMultistepScheduler(),
    )
    made.set_progress_bar_config(disable=True)
    return made


def latents(pipe: diffusers.PixArtAlphaPipeline, items) -> np.ndarray:
    texts = [torch.randn(5, 12, generator=torch.Generator().manual_seed(int(item.prompt.id))) for item in items]
    mask = torch.ones(len(items), 5)
    made = pipe(
        prompt_embeds=torch.stack(texts),
        prompt_attention_mask=mask,
        negative_prompt=None,
        negative_prompt_embeds=torch.zeros(len(items), 5, 12),
        negative_prompt_attention_mask=mask,
        num_inference_steps=STEPS,
        height=64,
        width=64,
        use_resolution_binning=False,
        generator=[torch.Generator().manual_seed(item.seed) for item in items],
        output_type="latent",
    )
    return made.images.numpy()


@pytest.mark.parametrize(("forecast", "least"), [("never", 10), ("either", 4)])
def test_the_front_of_a_tiny_transformer_is_the_true_one(pipe, tmp_path, forecast, least):
    """Among all schedules that repeat outputs; or among those of whole steps that repeat or extrapolate them."""
    torch.set_num_threads(1)
    made: dict[bytes, np.ndarray] = {}
    sites = pixart_sites(1)
    config = {**pipe.transformer.config, "_class_name": "PixArtTransformer2DModel"}
    architecture = Architecture("Tiny", config, 64, 64, text_tokens=5, guidance_pair=True, steps=STEPS)
    problem = Problem(heuristics.none(sites, STEPS), macs_table(architecture).price, forecast=forecast)
    run = enable_cache(pipe, problem.template)

    def generate(schedule, items):
        key = plan_key(schedule)
        if key not in made:
            run.switch(schedule)  # as the same cache enabled anew, but sooner
            made[key] = latents(pipe, items)
        return made[key]

    def similarity(images, items):
        reference = generate(problem.template, items)
        return -np.log(np.mean((images - reference) ** 2, axis=(1, 2, 3)) + 1e-12)

    prompts = [Prompt("1", "first"), Prompt("2", "second")]
    evaluator = LocalEvaluator(generate, similarity, "similarity", prompts, seeds=[0], batch_size=2)
    free = (STEPS - 1) * len(sites)
    bits = np.ones((2**free - 1, STEPS, len(sites)), dtype=bool)
    bits[:, 1:] = ((np.arange(2**free - 1)[:, None] >> np.arange(free)) & 1).reshape(-1, STEPS - 1, len(sites))
    if forecast == "either":
        bits = bits[(bits.all(axis=2) == bits.any(axis=2)).all(axis=1)]
    choices = (False, True) if forecast == "either" else (False,)
    schedules = [CacheSchedule(one, sites, forecast=choice) for one in bits for choice in choices]
    quality = evaluate(evaluator, schedules).mean(axis=1)
    cost = np.array([count_macs(schedule, architecture) for schedule in schedules])
    expected = {(int(cost[i]), float(quality[i])) for i in pareto(cost, quality)}

    study = search(problem, evaluator, tmp_path, generations=25, population_size=20)
    assert {(candidate.cost, candidate.quality) for candidate in study.front()} == expected
    assert len(expected) >= least
    assert {candidate.schedule.forecast for candidate in study.front()} == set(choices)
    best = Study.open(tmp_path).front()[-1]
    again = CacheSchedule.load(tmp_path / best.path)
    run.disable()
    with cached(pipe, again):
        fresh = latents(pipe, study.items)
    assert similarity(fresh, study.items).mean() == best.quality
