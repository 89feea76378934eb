"""Cached bytes are predicted from shapes alone, and outputs may be kept elsewhere or smaller."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import ecad


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("batch", [1, 3])
def test_prediction_equals_the_peak(tiny, seed, batch):
    with ecad.cached(tiny.pipe, tiny.random_schedule(seed)) as run:
        tiny.run(batch=batch)
        assert run.memory() == run.stats.peak_cached_bytes > 0


@pytest.mark.parametrize("storage", [{}, {"keep_device": "cpu"}, {"keep_dtype": torch.bfloat16}])
def test_prediction_counts_what_lines_are_made_of(tiny, storage):
    bits = np.arange(6)[:, None].repeat(len(tiny.components), axis=1) % 2 == 0
    bits[:, 0] = True  # so that the denoiser runs
    schedule = tiny.schedule(bits)
    with ecad.cached(tiny.pipe, schedule, **storage) as run:
        tiny.run(6)
        repeated = run.stats.peak_cached_bytes
    with ecad.cached(tiny.pipe, schedule.replace(forecast=True), **storage) as run:
        tiny.run(6)
        assert run.memory() == run.stats.peak_cached_bytes
        assert run.stats.peak_cached_bytes > 1.5 * repeated
        assert run.stats.cached_bytes == 0


@pytest.mark.parametrize("storage", [{}, {"keep_device": "cpu"}, {"keep_dtype": torch.bfloat16}])
def test_whole_steps_that_are_forecast_keep_what_the_denoiser_returned_and_nothing_else(tiny, storage):
    returned = []
    tiny.pipe.transformer.register_forward_hook(lambda module, args, output: returned.append(output[0]))
    bits = np.zeros((6, len(tiny.components)), dtype=bool)
    bits[::2] = True
    with ecad.cached(tiny.pipe, tiny.schedule(bits).replace(forecast=True), **storage) as run:
        tiny.run(6)
        of_a_step = sum(one.nbytes for one in returned) // 6 // (2 if "keep_dtype" in storage else 1)
        # At the fourth step the point that is reused, and what came at the third, where the next line begins.
        assert run.memory() == run.stats.peak_cached_bytes == 2 * of_a_step
        assert run.stats.cached_bytes == 0


def test_prediction_is_of_the_last_generation(tiny):
    with ecad.cached(tiny.pipe, tiny.random_schedule(1)) as run:
        tiny.run(batch=1)
        small = run.memory()
        tiny.run(batch=2)
        assert run.memory() == 2 * small == run.stats.peak_cached_bytes


def test_memory_before_the_first_row_is_refused(pixart):
    with ecad.cached(pixart.pipe, pixart.random_schedule()) as run, pytest.raises(ecad.EcadError, match="has run"):
        run.memory()


def test_kept_in_half_precision_takes_half_the_memory_and_nearly_the_same_image(tiny):
    schedule = tiny.random_schedule(1)
    with ecad.cached(tiny.pipe, schedule) as run:
        exact, full = tiny.run(), run.stats.peak_cached_bytes
    with ecad.cached(tiny.pipe, schedule, keep_dtype=torch.bfloat16) as run:
        rounded = tiny.run()
        assert run.memory() == run.stats.peak_cached_bytes == full // 2
    assert rounded.dtype == exact.dtype
    assert not torch.equal(rounded, exact)
    assert torch.linalg.norm(rounded - exact) < 0.02 * torch.linalg.norm(exact)


def test_kept_on_another_device_leaves_the_image_as_it_is(tiny):
    schedule = tiny.random_schedule(1)
    with ecad.cached(tiny.pipe, schedule):
        expected = tiny.run()
    with ecad.cached(tiny.pipe, schedule, keep_device="cpu") as run:  # the same device here; the path is the same
        assert torch.equal(tiny.run(), expected)
        assert run.memory() == run.stats.peak_cached_bytes
