"""Rows replayed without their dead operators: the same bits, fewer operators, and no replay where it could differ."""

from __future__ import annotations

import pytest
import torch
from recorded_block import Operators, Recorded, some_input
from torch import nn

import ecad
from ecad.runtime.inputs import Inputs
from ecad.runtime.passes import Forward
from ecad.runtime.replay import recordings
from ecad.runtime.replay.facts import Unrecordable
from ecad.runtime.replay.recordings import Recordings
from ecad.runtime.replay.trace import record
from ecad.schedules import heuristics
from ecad.schedules.plan import Action

SCALE = torch.ones(4)


def attention(x, dropout=0.0):
    """Attention in which no token looks at the first."""
    mask = (torch.arange(3) > 0).expand(2, 1, 3, 3)
    queries = x[:, None]
    return nn.functional.scaled_dot_product_attention(queries, queries, queries, mask, dropout)[:, 0]


def _change_slices(x):
    grid = torch.arange(4.0).repeat(2, 3, 1)
    grid[:, :1] = grid[:, :1] * 2 + x[:, :1]
    twice = grid * 1
    grid[:, 1:2] = grid[:, 1:2] * 3
    return twice + grid * 1


def reuse_in_turn(pipeline, block="transformer_blocks"):
    """A schedule whose second row reuses everything."""
    return pipeline.schedule(heuristics.every_n(tuple(pipeline.components), 4, 2).recompute)


def refuse(*_):
    raise Unrecordable


def operators_by_row(pipeline, schedule, monkeypatch, plain):
    """The operators of each forward of the denoiser under a schedule."""
    if plain:
        monkeypatch.setattr(recordings, "Facts", refuse)
    rows = []
    forward = pipeline.pipe.transformer.__class__.__call__

    def counted(self, *args, **kwargs):
        with Operators() as operators:
            result = forward(self, *args, **kwargs)
        rows.append(operators.names)
        return result

    monkeypatch.setattr(pipeline.pipe.transformer.__class__, "__call__", counted)
    with ecad.cached(pipeline.pipe, schedule):
        latents = pipeline.run()
    monkeypatch.undo()
    return rows, latents


@torch.no_grad()
def test_what_only_a_reused_component_reads_is_not_computed():
    block = Recorded(before=lambda x: torch.exp(x) * 2)
    x = some_input()
    with Operators() as operators:
        result = block.run(x)
    assert operators.names == ["add"]
    assert torch.equal(result, x + block.kept.get())
    with Operators() as operators:
        result = block.run(x, Action.COMPUTE)
    assert {"exp", "mul"} <= set(operators.names)
    assert torch.equal(result, block.plain(x, Action.COMPUTE))


@torch.no_grad()
def test_a_component_that_must_be_kept_runs_although_nobody_reads_it_now():
    block = Recorded(after=lambda x, y: x + 1)
    block.kept.free()
    block.run(some_input(), Action.KEEP)
    assert block.kept.get() is not None
    block.run(some_input(), Action.FREE)
    assert block.kept.get() is None


@torch.no_grad()
def test_equal_operators_run_once_and_what_never_changes_not_at_all():
    block = Recorded(before=lambda x: x.sin() + torch.arange(4).exp(), after=lambda x, y: x.sin() + y)
    with Operators() as operators:
        block.run(some_input(), Action.KEEP)
    assert operators.names.count("sin") == 1
    assert not {"arange", "exp"} & set(operators.names)


@pytest.mark.parametrize(
    "before",
    [
        pytest.param(lambda x: x * x.sum().item(), id="a number read from a tensor"),
        pytest.param(lambda x: x * x.flatten().tolist()[0], id="a list read from a tensor"),
        pytest.param(lambda x: x * torch.from_numpy(x.detach().numpy()), id="an array read from a tensor"),
        pytest.param(lambda x: x if x.sum() > 0 else -x, id="a branch on a tensor"),
        pytest.param(lambda x: x + torch.randn(4), id="random numbers"),
        pytest.param(lambda x: attention(x, dropout=0.5), id="dropout in attention"),
        pytest.param(lambda x: x * SCALE.mul_(1), id="a change of what is not its own"),
    ],
)
@torch.no_grad()
def test_a_forward_that_a_replay_could_get_wrong_has_no_graph(before):
    assert Recorded().graph is not None
    torch.manual_seed(1)
    block = Recorded(before=before)
    assert block.graph is None
    assert torch.equal(block.result, Recorded(before=before).result)


@pytest.mark.parametrize(
    "before",
    [
        pytest.param(lambda x: x.clone().mul_(2), id="a copy"),
        pytest.param(lambda x: torch.zeros(3, 4).copy_(x[0]) + torch.zeros(3, 4), id="one of two equal tensors"),
        pytest.param(_change_slices, id="slices of a tensor, between reads of it"),
        pytest.param(attention, id="attention"),
    ],
)
@torch.no_grad()
def test_changes_in_place_are_replayed_or_refused(before):
    block = Recorded(before=before)
    assert block.graph is not None or before.__name__ == "<lambda>"
    for seed in (1, 2, 3):
        x = some_input(seed)
        assert block.graph is None or torch.equal(block.run(x, Action.COMPUTE), block.plain(x, Action.COMPUTE))


@pytest.mark.parametrize("change", [lambda y: y.add_(1), lambda y: y[:, :1].mul_(2), lambda y: y.view(-1).neg_()])
@torch.no_grad()
def test_a_block_that_changes_an_output_in_place_has_no_graph_and_is_given_copies(change):
    def after(x, y):
        change(y)
        return x + y

    block = Recorded(after=after)
    assert block.graph is None
    expected, x = block.block.ff(some_input(0)), some_input(1)
    change(expected)
    for _ in range(2):
        assert torch.equal(block.plain(x), x + expected)


@torch.no_grad()
def test_memory_that_was_freed_does_not_count_when_it_is_used_again():
    def before(x):
        once, again = x + 1, x + 1  # one operator, so that neither result may be changed in place
        total = once * again
        del once, again
        for _ in range(100):
            fresh = x * 3  # where one of them was
            fresh.add_(1)
            total = total + fresh
        return total

    recorded = Recorded(before)
    assert recorded.graph is not None
    x = torch.randn(2, 3, 4)
    assert torch.equal(recorded.run(x), recorded.plain(x))


class Eater(nn.Module):
    """A component that changes in place what it is given."""

    def forward(self, x):
        return x.mul_(2) + 1


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_component_that_changes_what_another_one_returned(mode):
    torch.manual_seed(0)
    denoiser = nn.Sequential(nn.ModuleDict({"mixer": nn.Linear(4, 4), "eater": Eater()})).eval()
    denoiser.forward = lambda x: denoiser[0]["eater"](denoiser[0]["mixer"](x))
    schedule = ecad.CacheSchedule([[True, True], [False, True], [False, True]], (("0", "mixer"), ("0", "eater")))
    with mode():
        expected = denoiser(some_input(0))
        with ecad.cached(denoiser, schedule) as run:
            for row in range(3):
                with run.step(row):
                    assert torch.equal(denoiser(some_input(row)), expected)
    assert run.stats.reused == 2


def test_a_component_that_is_called_twice_has_no_graph():
    block = Recorded()
    block.block.after = lambda x, y: block.block.ff(y)
    inputs = Inputs([], (some_input(),), {})
    block.now.forward = forward = Forward(block.of, 0)
    with torch.no_grad():
        _, graph = record(block.block.forward, [block.block.ff], inputs, forward, block.facts)
    assert graph is None


def test_a_fully_reused_row_has_few_operators_left(tiny, monkeypatch):
    schedule = reuse_in_turn(tiny)
    plain, expected = operators_by_row(tiny, schedule, monkeypatch, plain=True)
    rows, latents = operators_by_row(tiny, schedule, monkeypatch, plain=False)
    assert torch.equal(latents, expected)
    reused = tiny.passes  # the first forward of the second row
    assert len(rows[reused]) < 0.6 * len(plain[reused])
    assert "native_layer_norm" not in rows[reused][: len(rows[reused]) // 2]


def test_weights_that_change_are_seen(tiny):
    schedule = reuse_in_turn(tiny)
    with ecad.cached(tiny.pipe, schedule):
        tiny.run()
        with torch.no_grad():
            for parameter in tiny.pipe.transformer.parameters():
                parameter.mul_(1.1)
        changed = tiny.run()
    assert torch.equal(changed, tiny.reference(schedule))


def recordings_of(run) -> Recordings:
    (denoiser,) = run._denoisers
    return denoiser._recordings


def test_forwards_of_many_shapes_do_not_pile_up(tiny):
    with ecad.cached(tiny.pipe, reuse_in_turn(tiny)) as run:
        for batch in range(1, 19):
            tiny.run(batch=batch)
        assert len(recordings_of(run)._graphs) == recordings._MOST_GRAPHS


def test_rows_of_many_kinds_do_not_pile_up(tiny, monkeypatch):
    monkeypatch.setattr(recordings, "_MOST_PROGRAMS", 2)
    with ecad.cached(tiny.pipe, tiny.random_schedule(steps=6)) as run:
        tiny.run(6)
        graphs = recordings_of(run)._graphs.values()
        assert [len(graph._programs) for graph in graphs] == [2] * len(graphs)


@pytest.mark.parametrize("mode", [torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_modes_of_torch_are_respected(tiny, mode):
    schedule = tiny.random_schedule(1)
    with mode():
        expected = tiny.reference(schedule)
        with ecad.cached(tiny.pipe, schedule):
            assert torch.equal(tiny.run(), expected)
            assert torch.equal(tiny.run(), expected)


def test_blocks_that_others_hook_into_run_as_they_are(tiny):
    seen = []
    handle = tiny.pipe.transformer.transformer_blocks[0].register_forward_hook(lambda *_: seen.append(None))
    with ecad.cached(tiny.pipe, reuse_in_turn(tiny)):
        tiny.run()
    handle.remove()
    assert len(seen) == 4 * tiny.passes


@pytest.mark.parametrize("kind", ["everything computed", "whole steps forecast", "something reused"])
def test_only_what_may_be_replayed_is_recorded(tiny, monkeypatch, kind):
    recorded = []
    monkeypatch.setattr(recordings, "record", lambda *args: recorded.append(None) or record(*args))
    recompute = heuristics.every_n(tuple(tiny.components), 4, 1 if kind == "everything computed" else 2).recompute
    schedule = tiny.schedule(recompute).replace(forecast=kind == "whole steps forecast")
    with ecad.cached(tiny.pipe, schedule) as run:
        latents = tiny.run()
        assert bool(recorded) == (kind == "something reused")
        run.switch(reuse_in_turn(tiny))
        switched = tiny.run()
        assert recorded
        run.switch(schedule)
        assert torch.equal(tiny.run(), latents)
    assert torch.equal(switched, tiny.reference(reuse_in_turn(tiny)))
