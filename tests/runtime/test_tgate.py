"""Published TGATE schedules run: cross-attention becomes the mean of the guidance halves at the gate."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import ecad
from ecad.runtime.tgate import gates_of
from ecad.schedules import CacheSchedule, pixart_sites

GATE = 2


def gated(pixart, bits, gate=GATE, name="compute_attn_tgate", blocks=("0", "1", "2")):
    entry = {"name": name, "kwargs": {"gate_step": gate}}
    custom = {(step, block, "custom_compute_attn"): entry for step in range(len(bits)) for block in blocks}
    return CacheSchedule(bits, pixart_sites(3), name="gated", custom_compute=custom)


def tgate_bits(steps=4):
    bits = np.ones((steps, 9), dtype=bool)
    bits[GATE:, 1::3] = False
    return bits


def test_averaged_outputs_are_not_forecast(pixart):
    schedule = gated(pixart, tgate_bits()).replace(forecast=True)
    with pytest.raises(ecad.ScheduleError, match=r"averaged outputs lie on no line .* both, in schedule 'gated'"):
        ecad.enable_cache(pixart.pipe, schedule)


def test_a_block_without_cross_attention_has_nothing_to_average(pixart):
    whole = gated(pixart, tgate_bits())
    kept = [index for index, site in enumerate(whole.sites) if site[1] != "attn2"]
    schedule = whole.replace(recompute=whole.recompute[:, kept], sites=tuple(whole.sites[index] for index in kept))
    with pytest.raises(ecad.ScheduleError, match=r"component that it does not have \(step 000, block 0, .* attn2\)"):
        gates_of(schedule)


def halved(forward):
    """A forward of half the batch, its prediction for both halves."""

    def half(hidden_states, **kwargs):
        size = len(hidden_states) // 2
        halves = {k: v[size:] if isinstance(v, torch.Tensor) and len(v) > size else v for k, v in kwargs.items()}
        return tuple(torch.cat([part, part]) for part in forward(hidden_states[size:], **halves))

    return half


def reference(pixart, halve=True):
    """TGATE as its paper has it, by hand: from the gate on cross-attention is the mean of what both halves saw last,
    and half of the batch runs.
    """
    forwards, last = [], {}
    transformer = pixart.pipe.transformer
    whole = transformer.forward

    def denoise(*args, **kwargs):
        forwards.append(None)
        forward = halved(whole) if halve and len(forwards) > GATE else whole
        return forward(*args, **kwargs)

    transformer.forward = denoise
    modules = [module for (_, component), module in pixart.components.items() if component == "attn2"]

    def gating(module, original):
        def forward(*args, **kwargs):
            if len(forwards) <= GATE:
                last[module] = original(*args, **kwargs)
                return last[module]
            mean = sum(last[module].chunk(2)) / 2
            return mean.repeat(len(args[0]) // len(mean), 1, 1)

        return forward

    for module in modules:
        module.forward = gating(module, module.forward)
    try:
        return pixart.run()
    finally:
        for module in (transformer, *modules):
            del module.forward


def test_from_the_gate_on_cross_attention_is_the_mean_of_both_halves(pixart):
    expected, ungated = reference(pixart), None
    with ecad.cached(pixart.pipe, gated(pixart, tgate_bits())):
        assert torch.equal(pixart.run(), expected)
        assert torch.equal(pixart.run(), expected)
    with ecad.cached(pixart.pipe, pixart.schedule(tgate_bits())):
        ungated = pixart.run()
    assert not torch.equal(ungated, expected)


@pytest.fixture
def batches(pixart):
    """The batch of every forward of the denoiser's first feed-forward."""
    found = []
    pixart.components["0", "ff"].register_forward_pre_hook(lambda _, args: found.append(len(args[0])))
    return found


def test_half_of_the_batch_runs_from_the_gate_on(pixart, batches):
    with ecad.cached(pixart.pipe, gated(pixart, tgate_bits())) as run:
        pixart.run()
        assert run.memory() == run.stats.peak_cached_bytes
    assert batches == [4, 4, 2, 2]


def test_all_of_the_batch_runs_while_its_halves_differ(pixart, batches):
    bits = tgate_bits()
    bits[GATE, 0] = False
    with ecad.cached(pixart.pipe, gated(pixart, bits)):
        pixart.run()
    assert batches == [4] * 4


def test_all_of_the_batch_runs_in_a_generation_that_begins_after_the_gate(pixart, batches):
    calls, transformer = [], pixart.pipe.transformer
    handle = transformer.register_forward_pre_hook(
        lambda _, args, kwargs: calls.append((args, kwargs)), with_kwargs=True
    )
    pixart.run()
    handle.remove()
    batches.clear()
    with ecad.cached(transformer, gated(pixart, tgate_bits())) as run, torch.no_grad(), run.step(GATE + 1):
        transformer(*calls[-1][0], **calls[-1][1])
    assert batches == [4]


def test_a_batch_without_both_halves_is_refused(pixart):
    with (
        ecad.cached(pixart.pipe, gated(pixart, tgate_bits())),
        pytest.raises(ecad.EcadError, match="guidance scale above 1"),
    ):
        pixart.run(guidance_scale=1.0)


def test_other_computations_are_refused_by_name(pixart):
    with pytest.raises(ecad.ScheduleError, match="compute_attn_other"):
        ecad.enable_cache(pixart.pipe, gated(pixart, tgate_bits(), name="compute_attn_other"))
    assert "forward" not in vars(pixart.pipe.transformer)


def test_published_schedules_run(shared_data, make):
    files = sorted((shared_data / "published-schedules" / "pixart_alpha_tgate").glob("*.json"))
    assert len(files) == 6
    pixart = make.pixart(blocks=28)
    for file in files:
        with ecad.cached(pixart.pipe, CacheSchedule.load(file)) as run:
            latents = pixart.run(20, batch=1)
        assert latents.isfinite().all()
        assert run.stats.computed + run.stats.reused == 20 * 84
        assert run.stats.reused == (~CacheSchedule.load(file).recompute[1:]).sum()
