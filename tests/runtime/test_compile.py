"""Compiled denoisers: the same bits as without compilation, and a bounded number of graphs."""

from __future__ import annotations

import sys

import pytest
import torch
from tiny_pipelines import COMPILED
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.testing import CompileCounterWithBackend
from torch._functorch.aot_autograd import make_boxed_func

import ecad
from ecad.runtime.overrides import override_of
from ecad.schedules import heuristics

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
    flux, bare = make.flux(blocks=(2, 2)), make.flux(blocks=(2, 2))
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


def test_of_a_reused_compiled_block_gates_and_sums_are_left(make):
    torch._dynamo.reset()
    graphs = []

    def note(graph, inputs):
        graphs.append({node.target._opname for node in graph.graph.nodes if hasattr(node.target, "_opname")})
        return make_boxed_func(graph.forward)

    pixart = make.pixart(blocks=1)
    for block in pixart.pipe.transformer.transformer_blocks:
        block.compile(fullgraph=True, backend=aot_autograd(fw_compiler=note, inference_compiler=note))
    every_2 = pixart.schedule(heuristics.every_n(tuple(pixart.components), 2, 2).recompute)
    with ecad.cached(pixart.pipe, every_2):
        pixart.run(2)
    computed, reused = graphs[0], graphs[-1]
    assert {"native_layer_norm", "addmm"} <= computed
    assert reused == {"add", "mul", "view", "unsqueeze", "split"}
    torch._dynamo.reset()


@pytest.mark.parametrize(("tiny", "how"), COMPILED, indirect=["tiny"])
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
        hooks = [override_of(vars(module)["forward"]) for module in flux.components.values()]
        assert [(hook.given, hook.taken) for hook in hooks] == [([], [])] * len(hooks)
        assert run.stats.cached_bytes == 0


class Twice(torch.nn.Module):
    """Calls its component twice, and changes in place what it returns."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.ff = torch.nn.Linear(4, 4)

    def forward(self, x):
        first, second = self.ff(x), self.ff(x + 1)
        first += x
        return first * 2 + second


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_blocks_that_call_a_component_twice_and_change_what_it_returns(backend):
    torch._dynamo.reset()
    bits = [[True], [False], [True], [False]]
    results = []
    for is_compiled in (False, True):
        denoiser = torch.nn.Sequential(Twice(), Twice()).eval()
        if is_compiled:
            for block in denoiser:
                block.compile(fullgraph=True, backend=backend)
        schedule = ecad.CacheSchedule([row * 2 for row in bits], (("0", "ff"), ("1", "ff")))
        with ecad.cached(denoiser, schedule) as run, torch.no_grad():
            for _ in range(2):
                x = torch.ones(2, 4)
                for row in range(len(bits)):
                    with run.step(row):
                        x = x - 0.1 * denoiser(x)
                results.append(x)
        assert (run.stats.computed, run.stats.reused, run.stats.cached_bytes) == (16, 16, 0)
    assert all(torch.equal(result, results[0]) for result in results)
    torch._dynamo.reset()
