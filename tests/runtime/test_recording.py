"""How alike a denoiser's outputs are, against the outputs themselves."""

from __future__ import annotations

import numpy as np
import torch

import ecad
from ecad.runtime.recording import OutputProducts

STEPS = 4


def watched(tiny, runs):
    """The table of some generations, and the outputs of each: a list a generation, a list a step, one tensor a pass."""
    seen, outputs = OutputProducts(STEPS), []
    handle = tiny.pipe.transformer.register_forward_hook(lambda _, args, output: outputs.append(output[0].clone()))
    with ecad.cached(tiny.pipe, tiny.schedule(np.ones((STEPS, len(tiny.components)), dtype=bool))) as run:
        run.on_output = seen.see
        for _ in range(runs):
            tiny.run(STEPS)
    handle.remove()
    tiny.run(STEPS)
    return seen, outputs


def products(outputs):
    flat = torch.stack([output.double().flatten() for output in outputs])
    return np.asarray(flat @ flat.T)


def test_the_table_is_of_all_passes_and_generations(tiny):
    seen, outputs = watched(tiny, runs=2)
    assert len(outputs) == 2 * STEPS * tiny.passes
    generations = [outputs[: STEPS * tiny.passes], outputs[STEPS * tiny.passes :]]
    expected = sum(products(one[which :: tiny.passes]) for one in generations for which in range(tiny.passes))
    expected *= STEPS / expected.trace()
    np.testing.assert_allclose(seen.table(), expected, atol=1e-9)
    assert np.array_equal(seen.table(), seen.table().T)


def see(seen, *steps, size=2):
    for step in steps:
        seen.see(step, (torch.full((size,), 1.0 + step),))


def test_a_generation_that_was_given_up_does_not_count():
    seen = OutputProducts(3)
    see(seen, 0, 1)
    see(seen, 0, 1, 2)
    whole = OutputProducts(3)
    see(whole, 0, 1, 2)
    assert np.array_equal(seen.table(), whole.table())


def test_steps_that_differ_cannot_be_compared():
    for steps, size in (((0, 2), 2), ((0, 1, 1, 2), 2), ((0, 1, 2, 3), 2), ((), 2), ((0, 1, 2), 0)):
        seen = OutputProducts(3)
        see(seen, *steps, size=size)
        assert seen.table() is None
    broken = OutputProducts(1)
    broken.see(0, torch.tensor([float("nan")]))
    assert broken.table() is None
