"""Compiled denoisers: the same bits as without compilation, and a bounded number of graphs."""

from __future__ import annotations

import sys

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

import ecad
from ecad.runtime.hooks import ComponentHook
from ecad.runtime.kept_outputs import CacheStats, Kept
from ecad.runtime.overrides import override_of
from ecad.schedules import heuristics
from ecad.schedules.plan import Action

# Of a FLUX double block: any of three components reused. Of a single block: its output reused, or any of the other two.
# Twice, because some blocks see tensors that are slices of larger ones.
MOST_FLUX_GRAPHS = 2 * (8 + 5)
share_graphs = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="in Python 3.10 PyTorch tells partial functions apart by what they are, not do"
)


@pytest.fixture
def counter():
    """Counts the graphs that are made of what it compiles, and runs them as they are."""
    torch._dynamo.reset()
    with torch._dynamo.config.patch(recompile_limit=MOST_FLUX_GRAPHS):
        yield CompileCounterWithBackend("eager")
    torch._dynamo.reset()


@share_graphs
def test_compiled_blocks_give_the_same_bits_from_few_graphs(make, counter):
    flux = make.flux(blocks=(3, 3))
    flux.pipe.transformer.compile_repeated_blocks(fullgraph=True, backend=counter)
    for seed in range(3):
        schedule = flux.random_schedule(seed)
        with ecad.cached(flux.pipe, schedule) as run:
            compiled = flux.run()
        assert torch.equal(compiled, make.flux(blocks=(3, 3)).reference(schedule))
        assert run.stats.computed == flux.expected_calls(schedule)
        assert run.stats.cached_bytes == 0
    assert counter.frame_count <= MOST_FLUX_GRAPHS


@share_graphs
def test_compiled_blocks_forecast_as_others_do_and_need_no_more_graphs(make, counter):
    flux, bare = make.flux(blocks=(3, 3)), make.flux(blocks=(3, 3))
    flux.pipe.transformer.compile_repeated_blocks(fullgraph=True, backend=counter)
    every_2 = flux.schedule(heuristics.every_n(tuple(flux.components), 6, 2).recompute)
    repeating, graphs = [], []
    for schedule in (every_2, every_2.replace(forecast=True)):
        with ecad.cached(bare.pipe, schedule):
            expected = bare.run(6)
        with ecad.cached(flux.pipe, schedule) as run:
            assert torch.equal(flux.run(6), expected)
            assert run.memory() == run.stats.peak_cached_bytes
        repeating.append(expected)
        graphs.append(counter.frame_count)
    assert not torch.equal(*repeating)
    assert graphs[0] == graphs[1]


@share_graphs
def test_blocks_that_do_the_same_share_their_graphs(make, counter):
    counts = []
    for blocks in (2, 5):
        torch._dynamo.reset()
        counter.frame_count = 0
        flux = make.flux(blocks=(blocks, 1))
        flux.pipe.transformer.compile_repeated_blocks(fullgraph=True, backend=counter)
        every_2 = flux.schedule(heuristics.every_n(tuple(flux.components), 4, 2).recompute)
        for schedule in (every_2, every_2.replace(name="again")):
            with ecad.cached(flux.pipe, schedule):
                flux.run()
        counts.append(counter.frame_count)
    assert counts[0] == counts[1]


@pytest.mark.parametrize("how", ["wrapped", "in place", "after enabling"])
def test_a_whole_compiled_denoiser_gives_the_same_bits(tiny, counter, how):
    pipe, schedule = tiny.pipe, tiny.random_schedule(1, steps=3)
    expected = tiny.reference(schedule)
    if how == "wrapped":
        pipe.transformer = torch.compile(pipe.transformer, fullgraph=True, backend=counter)
    elif how == "in place":
        pipe.transformer.compile(fullgraph=True, backend=counter)
    with ecad.cached(pipe, schedule) as run:
        if how == "after enabling":
            pipe.transformer = torch.compile(pipe.transformer, fullgraph=True, backend=counter)
        assert torch.equal(tiny.run(3), expected)
        graphs = counter.frame_count
        assert torch.equal(tiny.run(3), expected)
    assert counter.frame_count == graphs <= 3 * tiny.passes
    assert run.stats.computed == 2 * tiny.expected_calls(schedule)


def test_a_compiled_forward_outside_of_a_generation_leaves_nothing_behind(make, counter):
    flux = make.flux(blocks=(1, 1))
    transformer, calls = flux.pipe.transformer, []
    transformer.compile_repeated_blocks(fullgraph=True, backend=counter)
    handle = transformer.register_forward_pre_hook(lambda _, args, kwargs: calls.append(kwargs), with_kwargs=True)
    with ecad.cached(flux.pipe, flux.random_schedule()) as run, torch.no_grad():
        flux.run()
        handle.remove()
        transformer(**calls[0])
        kept = [override_of(vars(module)["forward"]).kept for module in flux.components.values()]
        assert [one.output for one in kept] == [None] * len(kept)
        assert run.stats.cached_bytes == 0


def test_a_compiled_component_that_has_nothing_to_reuse_computes_and_keeps(counter):
    module, stats, inputs = torch.nn.Linear(3, 5), CacheStats(), torch.ones(2, 3)
    hook = ComponentHook(module, kept := Kept(stats))
    compiled = torch.compile(module, fullgraph=True, backend=counter)
    with torch.no_grad():
        for _ in range(2):
            hook.act(Action.REUSE, kept)
            output = compiled(inputs)
            hook.settle()
            assert kept.output is output
            assert stats.cached_bytes == output.nbytes
