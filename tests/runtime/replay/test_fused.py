"""Rows that compute nothing, with their sums compiled: the same bits, one compilation for like rows, and a way back."""

from __future__ import annotations

import gc
import re
import warnings
import weakref
from functools import partial

import pytest
import torch
from recorded_block import Operators
from torch import fx, nn

import ecad
from ecad.errors import EcadWarning
from ecad.runtime.passes import Forward
from ecad.runtime.replay import fused, recordings
from ecad.runtime.replay.fused import FusedSums, Fuser, inductor
from ecad.schedules import heuristics

aten = torch.ops.aten


class Backend:
    """Runs what it is given as it is, and counts."""

    def __init__(self):
        self.compiled, self.runs, self.is_interrupted = [], 0, False

    def __call__(self, module, examples):
        if self.is_interrupted:
            self.is_interrupted = False
            raise KeyboardInterrupt
        self.compiled.append(module.code)
        forward = module.forward

        def run(*tensors):
            self.runs += 1
            return forward(*tensors)

        return run


@pytest.fixture
def backend(monkeypatch):
    one = Backend()
    monkeypatch.setattr(recordings, "Fuser", partial(Fuser, one))
    return one


@pytest.fixture(scope="module")
def compiler():
    """Inductor, with what it needs on a CPU."""
    builder = pytest.importorskip("torch._inductor.cpp_builder")
    try:
        builder.get_cpp_compiler()
    except Exception as error:
        pytest.skip(f"inductor has no C++ compiler here: {error}".splitlines()[0])
    return inductor


def in_turn(pipeline, n=3, steps=6):
    return pipeline.schedule(heuristics.every_n(tuple(pipeline.components), steps, n).recompute)


def unfused(pipeline, schedule):
    with ecad.cached(pipeline.pipe, schedule):
        return pipeline.run(schedule.num_steps)


def cast(pipeline, dtype):
    pipeline.pipe.transformer.to(dtype)
    for name, value in pipeline.call.items():
        if name.endswith("embeds"):
            pipeline.call[name] = value.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["pixart", "flux"])
def test_compiled_sums_give_the_same_bits(make, compiler, monkeypatch, name, dtype):
    pipeline, examples = getattr(make, name)(), []

    def watched(module, tensors):
        examples.extend(map(weakref.ref, tensors))
        return compiler(module, tensors)

    monkeypatch.setattr(recordings, "Fuser", partial(Fuser, watched))
    cast(pipeline, dtype)
    schedule = in_turn(pipeline)
    expected = unfused(pipeline, schedule)
    with ecad.cached(pipeline.pipe, schedule, fuse_rows=True) as run:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            for _ in range(2):
                assert torch.equal(pipeline.run(6), expected)
        assert not [one for one in told if one.category is EcadWarning]
        weights = {id(weight) for weight in pipeline.pipe.transformer.parameters()}
        gc.collect()
        assert examples
        assert not [one for example in examples if (one := example()) is not None and id(one) not in weights]
    assert run.stats.cached_bytes == 0


def test_a_fused_row_has_few_operators_left(tiny, backend, monkeypatch):
    schedule = in_turn(tiny)
    expected = unfused(tiny, schedule)
    monkeypatch.delattr(Forward, "release")  # nothing is let go of one by one
    with ecad.cached(tiny.pipe, schedule, fuse_rows=True) as run:
        assert torch.equal(tiny.run(6), expected)
    assert run.stats.cached_bytes == 0
    # One for all rows and passes: those that reuse for the last time let go of more, and do the same.
    assert len(backend.compiled) == 1
    assert backend.runs == 4 * tiny.passes
    blocks = 3 if len(tiny.components) == 9 else 2
    sums = backend.compiled[0].count("aten.mul.Tensor("), backend.compiled[0].count("aten.add.Tensor(")
    assert sums >= ((2 * blocks, 3 * blocks) if blocks == 3 else (3 * blocks, 3 * blocks))


def test_rows_that_compute_anything_are_not_compiled(tiny, backend):
    schedule = tiny.random_schedule()
    with ecad.cached(tiny.pipe, schedule, fuse_rows=True):
        assert torch.equal(tiny.run(), tiny.reference(schedule))
    assert not backend.compiled


def test_nothing_is_compiled_unless_it_is_asked_for(pixart, backend):
    unfused(pixart, in_turn(pixart))
    assert not backend.compiled


def wrong_bits(module, examples):
    return lambda *tensors: [torch.nextafter(one, one + 1) for one in module.forward(*tensors)]


def no_compiler(module, examples):
    raise RuntimeError("no compiler\nmore about it")


def out_of_order(module, examples):
    """Works once."""
    calls = []

    def run(*tensors):
        calls.append(None)
        if len(calls) > 1:
            raise AssertionError("expected size 3")
        return [aten.add.Tensor(one, 0) for one in forward(*tensors)]

    forward = module.forward
    return run


@pytest.mark.parametrize(
    ("backend", "why"),
    [
        (wrong_bits, "do not give the same bits"),
        (no_compiler, "RuntimeError: no compiler"),
        (out_of_order, "AssertionError: expected size 3"),
    ],
)
def test_operators_run_for_good_where_a_compiled_row_does_not(tiny, monkeypatch, backend, why):
    monkeypatch.setattr(recordings, "Fuser", partial(Fuser, backend))
    schedule = in_turn(tiny)
    expected = unfused(tiny, schedule)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with ecad.cached(tiny.pipe, schedule, fuse_rows=True):
            for batch in (2, 1):
                latents = tiny.run(6, batch=batch)
                assert batch == 1 or torch.equal(latents, expected)
    (message,) = [str(one.message) for one in told if one.category is EcadWarning]
    assert re.fullmatch(f"rows are not fused: .*{why}.*", message)


def test_weights_that_change_are_seen(tiny, backend):
    schedule = in_turn(tiny)
    with ecad.cached(tiny.pipe, schedule, fuse_rows=True):
        tiny.run(6)
        with torch.no_grad():
            for parameter in tiny.pipe.transformer.parameters():
                parameter.mul_(1.1)
        changed, runs = tiny.run(6), backend.runs
    assert torch.equal(changed, tiny.reference(schedule))
    assert (len(backend.compiled), runs) == (1, 8 * tiny.passes)


def test_a_schedule_that_comes_back_is_compiled_already(pixart, backend):
    every_3, every_2 = in_turn(pixart), in_turn(pixart, 2)
    expected = {schedule: pixart.reference(schedule) for schedule in (every_3, every_2)}
    with ecad.cached(pixart.pipe, every_3, fuse_rows=True) as run:
        for schedule in (every_3, every_2, every_3):
            run.switch(schedule)
            assert torch.equal(pixart.run(6), expected[schedule])
    assert len(backend.compiled) == 1


def test_shapes_are_compiled_apart_and_not_without_end(pixart, backend, monkeypatch):
    monkeypatch.setattr(fused, "_MOST_COMPILED", 2)
    schedule = in_turn(pixart)
    expected = {batch: pixart.reference(schedule, batch=batch) for batch in (1, 2, 3)}
    with ecad.cached(pixart.pipe, schedule, fuse_rows=True):
        for batch, compiled in ((1, 1), (2, 2), (1, 2), (3, 2)):
            assert torch.equal(pixart.run(6, batch=batch), expected[batch])
            assert len(backend.compiled) == compiled


def test_a_generation_that_is_broken_off_does_not_matter(tiny, backend):
    schedule = in_turn(tiny)
    expected = unfused(tiny, schedule)
    backend.is_interrupted = True
    with ecad.cached(tiny.pipe, schedule, fuse_rows=True) as run:
        with pytest.raises(KeyboardInterrupt):
            tiny.run(6)
        assert run.stats.cached_bytes == 0
        assert torch.equal(tiny.run(6), expected)
        tiny.break_off(at=2)
        assert torch.equal(tiny.run(6), expected)
    assert len(backend.compiled) == 1


def test_what_was_compiled_goes_with_the_cache(pixart, backend, monkeypatch):
    made = []
    init = FusedSums.__init__

    def noted(self, *args):
        init(self, *args)
        made.append(weakref.ref(self))

    monkeypatch.setattr(FusedSums, "__init__", noted)
    run = ecad.enable_cache(pixart.pipe, in_turn(pixart), fuse_rows=True)
    pixart.run(6)
    assert [one() for one in made] != [None]
    run.disable()
    gc.collect()
    assert [one() for one in made] == [None]


def test_blocks_that_others_hook_into_run_as_they_are(pixart, backend):
    handle = pixart.pipe.transformer.transformer_blocks[0].register_forward_hook(lambda *_: None)
    with ecad.cached(pixart.pipe, in_turn(pixart), fuse_rows=True):
        pixart.run(6)
    handle.remove()
    assert not backend.compiled


def some_sums():
    graph = fx.Graph()
    one, other = graph.placeholder("one"), graph.placeholder("other")
    total = graph.call_function(aten.add.Tensor, (graph.call_function(aten.mul.Tensor, (one, other)), one))
    graph.output((total,))
    return fx.GraphModule(nn.Module(), graph)


@pytest.mark.parametrize("change", ["dtype", "shape", "strides"])
@torch.no_grad()
def test_tensors_of_another_kind_are_added_up_by_operators(compiler, change):
    fuser = Fuser(compiler)
    sums = FusedSums(some_sums(), fuser)
    one, other = torch.randn(2, 4, 6), torch.randn(2, 1, 6)
    for _ in range(2):
        assert torch.equal(sums(one, other)[0], one * other + one)
    changed = {"dtype": one.bfloat16(), "shape": one[:1], "strides": one.mT.contiguous().mT}[change]
    expected = changed * other + changed
    if change == "dtype":
        assert torch.equal(sums(changed, other)[0], expected)
        assert not fuser.is_off
    else:
        with pytest.warns(EcadWarning, match="rows are not fused: AssertionError"):
            assert torch.equal(sums(changed, other)[0], expected)


@torch.no_grad()
def test_whoever_watches_operators_sees_them(backend):
    sums = FusedSums(some_sums(), Fuser(backend))
    one = torch.ones(2, 2)
    for _ in range(2):
        sums(one, one)
    runs = backend.runs
    with Operators() as operators:
        sums(one, one)
    assert operators.names == ["mul", "add"]
    assert backend.runs == runs == 2
