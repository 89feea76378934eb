"""Schedules of whole steps on denoisers of any kind: UNets, other names, transformers taken as a whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny_pipelines import Tiny
from tiny_unets import PIPELINES, latents, made
from whole_steps import COMPUTED, count_runs, products_of, schedule_of

import ecad
from ecad import CacheSchedule
from ecad.schedules.by_sigma import as_whole_steps
from ecad.sites.discovery import denoisers

# Rows of the scheduler at six steps: PLMS runs its second step twice, Stable Cascade leaves the last timestep out.
ROWS = {"sd15": 7, "controlled": 7, "cascade prior": 7}


@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize("forecast", [False, True])
def test_a_schedule_that_computes_everything_changes_no_bit(name: str, forecast: bool) -> None:
    pipe, call = made(name)
    expected, rows = latents(pipe, call), ROWS.get(name, 6)
    with ecad.cached(pipe, schedule_of(list(range(rows)), rows, forecast=forecast)):
        assert torch.equal(latents(pipe, call), expected)
    assert torch.equal(latents(pipe, call), expected)


@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize("how", ["repeated", "in a line", "fitted"])
def test_the_unet_runs_in_the_steps_of_the_schedule_only(name: str, how: str) -> None:
    pipe, call = made(name)
    exact, rows = latents(pipe, call), ROWS.get(name, 6)
    rest = {"forecast": how != "repeated", "output_products": products_of(rows) if how == "fitted" else None}
    (denoiser,) = denoisers(pipe).values()
    runs = count_runs(denoiser)
    with ecad.cached(pipe, schedule_of(COMPUTED, rows, **rest)):
        first, ran = latents(pipe, call), runs[0]
        second = latents(pipe, call)
    assert (ran, runs[0]) == (len(COMPUTED), 2 * len(COMPUTED))
    assert torch.equal(first, second)
    assert not torch.equal(first, exact)
    assert torch.isfinite(first).all()
    assert torch.equal(latents(pipe, call), exact)


@pytest.mark.parametrize("how", ["repeated", "in a line", "fitted"])
def test_what_stands_for_an_output_is_what_the_schedule_says(how: str) -> None:
    pipe, call = made("sdxl")
    rest = {"forecast": how != "repeated", "output_products": products_of(6) if how == "fitted" else None}
    schedule = schedule_of(COMPUTED, 6, **rest)
    with ecad.cached(pipe, schedule):
        found = latents(pipe, call)
    aheads = ecad.schedules.forecast.forecasts(schedule.recompute[:, 0], schedule.output_products)
    kept: list[torch.Tensor] = []
    unet, row = pipe.unet.forward, [0]

    def forward(*args: Any, **kwargs: Any) -> Any:
        ahead, step = aheads[row[0]], row[0]
        row[0] += 1
        if step in COMPUTED:
            kept.insert(0, unet(*args, **kwargs)[0])
            return (kept[0].clone(),)
        if how == "repeated":
            return (kept[0].clone(),)
        given = kept[0] * ahead.scale
        return (given if ahead.slope is None else torch.add(given, kept[0] - kept[1], alpha=ahead.slope),)

    pipe.unet.forward = forward
    assert torch.equal(latents(pipe, call), found)


def test_whole_steps_of_a_transformer_are_the_same_either_way(tiny: Tiny) -> None:
    bits = np.zeros((4, len(tiny.components)), dtype=bool)
    bits[[0, 2]] = True
    by_components = tiny.schedule(bits).replace(forecast=True, output_products=products_of(4))
    with ecad.cached(tiny.pipe, by_components):
        expected = tiny.run()
    with ecad.cached(tiny.pipe, as_whole_steps(by_components)):
        assert torch.equal(tiny.run(), expected)


@pytest.mark.parametrize("name", ["EmojiImageGenerator", "EmojiFluxImageGenerator"])
def test_whole_steps_of_the_built_in_models_are_the_same_either_way(name: str) -> None:
    generator = ecad.get_image_generator(name)
    embeds = generator.encode(["a fox", "a crab on a blue background"])
    sites = CacheSchedule.for_model(generator.pipe, 6).sites
    bits = np.zeros((6, len(sites)), dtype=bool)
    bits[[0, 1, 4]] = True
    schedule = CacheSchedule(bits, sites, forecast=True, output_products=products_of(6))
    images = generator.generate(embeds, [1, 2], schedule, steps=6)
    assert np.array_equal(generator.generate(embeds, [1, 2], as_whole_steps(schedule), steps=6), images)
