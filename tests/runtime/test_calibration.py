"""How alike what a sampler is given is, against what it is given."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ecad.runtime.calibration import recorded_products

STEPS = 4


def products(given):
    flat = torch.stack([one.double().flatten() for one in given])
    return np.asarray(flat @ flat.T)


def run_watched(tiny, steps=STEPS):
    """A generation, and what its sampler was given."""
    given, step = [], tiny.pipe.scheduler.step

    def watched(output, *rest, **options):
        given.append(output.clone())
        return step(output, *rest, **options)

    tiny.pipe.scheduler.step = watched
    tiny.run(steps)
    del tiny.pipe.scheduler.step
    return given


def test_the_table_is_of_what_the_sampler_is_given_in_all_generations(tiny):
    given = run_watched(tiny)
    assert len(given) == STEPS
    with recorded_products(tiny.pipe, STEPS) as seen:
        tiny.run(STEPS)
    once = seen.table()
    expected = products(given)
    np.testing.assert_allclose(once, expected * (STEPS / expected.trace()), atol=1e-9)
    assert np.array_equal(once, once.T)
    with recorded_products(tiny.pipe, STEPS) as seen:
        tiny.run(STEPS)
        tiny.run(STEPS)
    np.testing.assert_allclose(seen.table(), once, atol=1e-9)
    assert "step" not in vars(tiny.pipe.scheduler)


def test_a_generation_that_was_given_up_does_not_count(tiny):
    def fail(module, args, kwargs, output):
        calls.append(None)
        if len(calls) == 2 * tiny.passes:
            raise MemoryError

    calls = []
    handle = tiny.pipe.transformer.register_forward_hook(fail, with_kwargs=True)
    with recorded_products(tiny.pipe, STEPS) as seen:
        with pytest.raises(MemoryError):
            tiny.run(STEPS)
        handle.remove()
        assert seen.table() is None
        tiny.run(STEPS)
    with recorded_products(tiny.pipe, STEPS) as whole:
        tiny.run(STEPS)
    assert np.array_equal(seen.table(), whole.table())


@pytest.mark.parametrize("steps", [STEPS - 1, STEPS + 1])
def test_a_generation_of_other_steps_does_not_count(tiny, steps):
    with recorded_products(tiny.pipe, STEPS) as seen:
        tiny.run(steps)
        tiny.run(steps)
    assert seen.table() is None


def test_no_numbers_make_no_table(tiny):
    handle = tiny.pipe.transformer.register_forward_hook(lambda _, args, output: (output[0] * torch.nan,))
    with recorded_products(tiny.pipe, STEPS) as seen:
        tiny.run(STEPS)
    handle.remove()
    assert seen.table() is None
