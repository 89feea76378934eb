"""The table of times is what the clock says, shared out by site; a clock of our own tells."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ecad.image_generators import get_image_generator
from ecad.image_generators import latency_table as timing

TIMES = {"attn1": 500, "attn2": 300, "ff": 700}
OUTSIDE, DECODER, STEPS = 1100, 90, 3


@pytest.fixture
def generator(monkeypatch):
    """The built-in model on a clock that only its components, its last layer and its decoder move on."""
    generator = replace(get_image_generator("EmojiImageGenerator"), steps=STEPS)
    now = [0]

    def takes(module, time):
        def forward(*args, **kwargs):
            now[0] += time
            return type(module).forward(module, *args, **kwargs)

        monkeypatch.setattr(module, "forward", forward, raising=False)

    for block in generator.pipe.transformer.transformer_blocks:
        for name, time in TIMES.items():
            takes(getattr(block, name), time)
    takes(generator.pipe.transformer.proj_out, OUTSIDE)
    takes(generator.pipe.vae.decoder, DECODER * STEPS)
    monkeypatch.setattr(timing, "perf_counter_ns", lambda: now[0])
    return generator


@pytest.mark.parametrize("batch", [1, 2])
def test_the_table_has_every_component_and_all_else(generator, batch):
    table = timing.latency_table(generator, generator.encode(["a fox", "a red kite"][:batch]), rounds=1)
    blocks = len(generator.pipe.transformer.transformer_blocks)
    assert table.per_site.tolist() == [time // batch for time in TIMES.values()] * blocks
    assert table.fixed_per_step == (OUTSIDE + DECODER) // batch
    bits = np.zeros((STEPS, len(table.sites)), dtype=bool)
    assert table.price(bits) == (blocks * sum(TIMES.values()) + STEPS * (OUTSIDE + DECODER)) // batch
    # Where no component computes the denoiser does not run, and the decoder's share is left.
    assert table.price(bits, forecast=True) == (blocks * sum(TIMES.values()) + OUTSIDE + STEPS * DECODER) // batch


def test_nothing_is_left_in_the_generator(generator):
    before = [list(vars(module)) for module in generator.pipe.transformer.modules()]
    timing.latency_table(generator, generator.encode(["a fox"]), rounds=1)
    assert [list(vars(module)) for module in generator.pipe.transformer.modules()] == before
    assert not any(module._forward_hooks for module in generator.pipe.transformer.modules())
