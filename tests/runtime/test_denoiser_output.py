"""Under a forecast the denoiser is one more site: where none of its components computes, it does not run."""

from __future__ import annotations

import accelerate
import numpy as np
import pytest
import torch
from tiny_pipelines import COMPILED

import ecad
from ecad.runtime.denoiser import CachedDenoiser
from ecad.runtime.kept_outputs import CacheStats, Tally
from ecad.schedules.forecast import forecasts

ROWS = [0, 2, 3]
STEPS = 6


def whole_steps(tiny) -> ecad.CacheSchedule:
    bits = np.zeros((STEPS, len(tiny.components)), dtype=bool)
    bits[ROWS] = True
    return tiny.schedule(bits).replace(forecast=True)


def slowly(tiny, products=None, weights=None) -> torch.Tensor:
    """The latents of a generation whose denoiser is asked at `ROWS` only, and forecast from there."""
    ahead = forecasts([step in ROWS for step in range(STEPS)], products, weights)
    transformer, forward, outputs, calls = tiny.pipe.transformer, tiny.pipe.transformer.forward, {}, []

    def drawn(*args, **kwargs):
        step, which = divmod(len(calls), tiny.passes)
        calls.append(None)
        if step in ROWS:
            outputs[step, which] = forward(*args, **kwargs)[0]
        known = [outputs[row, which] for row in ROWS if row <= step][::-1]
        scale, slope, bend = ahead[step]
        made = known[0] * scale
        if slope is not None:
            made = torch.add(made, known[0] - known[1], alpha=slope)
        if bend is not None:
            made = torch.add(made, known[1] - known[2], alpha=bend)
        return (made,)

    transformer.forward = drawn
    try:
        return tiny.run(STEPS)
    finally:
        del transformer.forward


def test_where_its_products_are_known_it_is_what_fits_them(tiny):
    outputs = np.random.default_rng(1).normal(size=(STEPS, 9)).cumsum(axis=0)
    products = outputs @ outputs.T
    products = (products + products.T) / 2
    expected, schedule = slowly(tiny, products), whole_steps(tiny).replace(output_products=products)
    assert not torch.equal(expected, slowly(tiny))
    with ecad.cached(tiny.pipe, schedule):
        assert torch.equal(tiny.run(STEPS), expected)
        assert torch.equal(tiny.run(STEPS), expected)


def rows_of_weights(rng):
    """Of every depth that `ROWS` allows, and of computed steps, too."""
    depths = [1, 1, 2, 3, 3, 2]
    return tuple(tuple(rng.uniform(0.2, 0.8, depth).tolist()) for depth in depths)


def test_where_weights_are_fitted_every_output_is_made_of_the_newest_ones(tiny):
    weights = rows_of_weights(np.random.default_rng(0))
    schedule, expected = whole_steps(tiny).replace(output_weights=weights), slowly(tiny, weights=weights)
    assert not torch.equal(expected, slowly(tiny))
    with ecad.cached(tiny.pipe, schedule) as run:
        assert torch.equal(tiny.run(STEPS), expected)
        assert torch.equal(tiny.run(STEPS), expected)
        assert run.stats.peak_cached_bytes == run.memory()


def test_a_generation_that_begins_later_has_no_use_for_weights_of_what_did_not_run(tiny):
    products = np.eye(STEPS) + 1
    schedule = whole_steps(tiny).replace(output_products=products)
    begun = schedule.replace(output_weights=rows_of_weights(np.random.default_rng(0)))
    denoiser = CachedDenoiser("t", tiny.pipe.transformer, schedule, lambda: None, Tally(CacheStats()))
    one, other = denoiser.planned(schedule), denoiser.planned(begun)
    assert one._ahead(2) == other._ahead(2)
    assert one._ahead(0) != other._ahead(0)


def watch_runs(tiny) -> list[None]:
    """Grows by one whenever the denoiser comes to its last layer."""
    runs: list[None] = []
    tiny.pipe.transformer.proj_out.register_forward_hook(lambda *_: runs.append(None))
    return runs


def test_it_is_not_run_but_drawn_on(tiny):
    expected, schedule = slowly(tiny), whole_steps(tiny)
    with ecad.cached(tiny.pipe, schedule) as run:
        assert torch.equal(tiny.run(STEPS), expected)
        runs = watch_runs(tiny)
        assert torch.equal(tiny.run(STEPS), expected)
    assert len(runs) == len(ROWS) * tiny.passes
    counted = run.stats.computed, run.stats.reused, run.stats.skipped
    assert counted == (2 * tiny.expected_calls(schedule), 0, 2 * tiny.passes * 3 * len(tiny.components))


@pytest.mark.parametrize(("tiny", "how"), COMPILED, indirect=["tiny"])
def test_nor_is_a_compiled_one(tiny, how):
    pipe, schedule, expected, ran = tiny.pipe, whole_steps(tiny), slowly(tiny), []

    def backend(graph, _):
        def run(*args):
            ran.append(None)
            return graph(*args)

        return run

    torch._dynamo.reset()
    if how == "wrapped":
        pipe.transformer = torch.compile(pipe.transformer, fullgraph=True, backend=backend)
    elif how == "in place":
        pipe.transformer.compile(fullgraph=True, backend=backend)
    with ecad.cached(pipe, schedule):
        if how == "after enabling":
            pipe.transformer = torch.compile(pipe.transformer, fullgraph=True, backend=backend)
        assert torch.equal(tiny.run(STEPS), expected)
        assert torch.equal(tiny.run(STEPS), expected)
    assert len(ran) == 2 * len(ROWS) * tiny.passes


@pytest.mark.parametrize("when", ["before", "after"])
def test_nor_is_one_that_is_offloaded(tiny, when):
    expected = slowly(tiny)
    if when == "before":
        accelerate.cpu_offload(tiny.pipe.transformer, execution_device=torch.device("cpu"))
    with ecad.cached(tiny.pipe, whole_steps(tiny)):
        if when == "after":
            accelerate.cpu_offload(tiny.pipe.transformer, execution_device=torch.device("cpu"))
        runs = watch_runs(tiny)
        assert torch.equal(tiny.run(STEPS), expected)
        assert len(runs) == len(ROWS) * tiny.passes
        assert torch.equal(tiny.run(STEPS), expected)


def test_a_pipeline_that_changes_what_it_is_given_changes_no_later_step(tiny):
    step = tiny.pipe.scheduler.step

    def halved(output, *rest, **options):
        return step(output * 0.5, *rest, **options)

    def halved_in_place(output, *rest, **options):
        return step(output.mul_(0.5), *rest, **options)

    latents = []
    for tiny.pipe.scheduler.step in (halved, halved_in_place):
        with ecad.cached(tiny.pipe, whole_steps(tiny)):
            latents.append(tiny.run(STEPS))
    assert torch.equal(*latents)


def test_what_others_make_of_the_output_is_made_of_it_once(tiny):
    handle = tiny.pipe.transformer.register_forward_hook(lambda module, args, output: (output[0] * 0.5,))
    with ecad.cached(tiny.pipe, whole_steps(tiny)):
        hooked = tiny.run(STEPS)
    handle.remove()
    with torch.no_grad():
        for parameter in tiny.pipe.transformer.proj_out.parameters():
            parameter.mul_(0.5)
    assert torch.equal(hooked, slowly(tiny))


def test_a_step_in_which_one_component_computes_runs_it(tiny):
    bits = np.zeros((STEPS, len(tiny.components)), dtype=bool)
    bits[ROWS] = True
    bits[4, 0] = True
    runs = watch_runs(tiny)
    with ecad.cached(tiny.pipe, tiny.schedule(bits).replace(forecast=True)):
        tiny.run(STEPS)
    assert len(runs) == 4 * tiny.passes


def test_it_runs_under_a_schedule_that_repeats(tiny):
    runs = watch_runs(tiny)
    with ecad.cached(tiny.pipe, whole_steps(tiny).replace(forecast=False)):
        tiny.run(STEPS)
    assert len(runs) == STEPS * tiny.passes


def test_what_the_denoiser_returns_is_given_in_the_same_form(pixart):
    transformer, calls = pixart.pipe.transformer, []
    handle = transformer.register_forward_pre_hook(
        lambda _, args, kwargs: calls.append((args, kwargs)), with_kwargs=True
    )
    pixart.run(2)
    handle.remove()
    args, kwargs = calls[0]
    run = ecad.enable_cache(transformer, whole_steps(pixart))
    forms = []
    with torch.no_grad():
        for row in range(3):
            with run.step(row):
                forms.append(transformer(*args, **{**kwargs, "return_dict": True}))
    assert type(forms[1]) is type(forms[0])
    assert torch.equal(forms[1].sample, forms[0].sample)
    assert forms[1].sample is not forms[0].sample
