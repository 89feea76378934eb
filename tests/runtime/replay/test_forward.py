"""Rows replayed without their dead operators: the same bits, fewer operators, and no replay where it could differ."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

import ecad
from ecad.runtime.hooks import ComponentHook
from ecad.runtime.kept_outputs import CacheStats, Kept
from ecad.runtime.replay import forward as replay
from ecad.runtime.replay.program import Program
from ecad.runtime.replay.trace import record
from ecad.schedules import heuristics
from ecad.schedules.plan import Action

SCALE = torch.ones(4)


class Operators(TorchDispatchMode):
    """Counts operators by name."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


class Block(nn.Module):
    """A component between glue that a test gives it."""

    def __init__(self, before, after):
        super().__init__()
        self.ff = nn.Linear(4, 4)
        self.before, self.after = before, after

    def forward(self, x):
        return self.after(x, self.ff(self.before(x)))


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


def recorded(before=lambda x: x, after=lambda x, y: x + y):
    """A block, its graph, and its hook, which has kept what it computed."""
    torch.manual_seed(0)
    block = Block(before, after).eval()
    hook = ComponentHook(block.ff, Kept(CacheStats()))
    hook.action = Action.KEEP
    leaves, structure = pytree.tree_flatten(((torch.randn(2, 3, 4),), {}))
    with torch.no_grad():
        result, graph = record(block.forward, {0: block.ff}, leaves, structure)
        assert torch.equal(result, block.forward(*leaves))
    return block, graph, hook


def reuse_in_turn(pipeline, block="transformer_blocks"):
    """A schedule whose second row reuses everything."""
    return pipeline.schedule(heuristics.every_n(tuple(pipeline.components), 4, 2).recompute)


def operators_by_row(pipeline, schedule, monkeypatch, plain):
    """The operators of each forward of the denoiser under a schedule."""
    if plain:
        monkeypatch.setattr(replay, "_signature", lambda *_: None)
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


def test_what_only_a_reused_component_reads_is_not_computed():
    block, graph, hook = recorded(before=lambda x: torch.exp(x) * 2, after=lambda x, y: x + y)
    hook.action = Action.REUSE
    x = torch.randn(2, 3, 4)
    with torch.no_grad(), Operators() as operators:
        result = Program(graph, [Action.REUSE]).run([x])
    assert operators.names == ["add"]
    assert torch.equal(result, x + hook.kept.output)
    hook.action = Action.COMPUTE
    with torch.no_grad(), Operators() as operators:
        assert torch.equal(Program(graph, [Action.COMPUTE]).run([x]), block(x))
    assert {"exp", "mul"} <= set(operators.names)


def test_a_component_that_must_be_kept_runs_although_nobody_reads_it_now():
    _, graph, hook = recorded(after=lambda x, y: x + 1)
    hook.kept.free()
    hook.action = Action.KEEP
    with torch.no_grad():
        Program(graph, [Action.KEEP]).run([torch.randn(2, 3, 4)])
    assert hook.kept.output is not None
    hook.action = Action.FREE
    with torch.no_grad():
        Program(graph, [Action.FREE]).run([torch.randn(2, 3, 4)])
    assert hook.kept.output is None


def test_equal_operators_run_once_and_what_never_changes_not_at_all():
    _, graph, _hook = recorded(before=lambda x: x.sin() + torch.arange(4).exp(), after=lambda x, y: x.sin() + y)
    with torch.no_grad(), Operators() as operators:
        Program(graph, [Action.KEEP]).run([torch.randn(2, 3, 4)])
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
def test_a_forward_that_a_replay_could_get_wrong_has_no_graph(before):
    block, graph, _ = recorded(lambda x: x, lambda x, y: x)
    assert graph is not None
    block.before = before
    leaves, structure = pytree.tree_flatten(((torch.randn(2, 3, 4),), {}))
    with torch.no_grad():
        torch.manual_seed(1)
        result, graph = record(block.forward, {0: block.ff}, leaves, structure)
        torch.manual_seed(1)
        assert torch.equal(result, block.forward(*leaves))
    assert graph is None


@pytest.mark.parametrize(
    "before",
    [
        pytest.param(lambda x: x.clone().mul_(2), id="a copy"),
        pytest.param(lambda x: torch.zeros(3, 4).copy_(x[0]) + torch.zeros(3, 4), id="one of two equal tensors"),
        pytest.param(_change_slices, id="slices of a tensor, between reads of it"),
    ],
)
def test_changes_in_place_are_replayed_or_refused(before):
    block, graph, hook = recorded(before=before)
    hook.action = Action.COMPUTE
    for seed in (1, 2, 3):
        x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            assert graph is None or torch.equal(Program(graph, [Action.COMPUTE]).run([x]), block(x))


@pytest.mark.parametrize("before", [_change_slices, attention])
def test_what_can_be_replayed_has_a_graph(before):
    block, graph, hook = recorded(before=before)
    hook.action = Action.COMPUTE
    x = torch.randn(2, 3, 4)
    with torch.no_grad():
        assert torch.equal(Program(graph, [Action.COMPUTE]).run([x]), block(x))


def test_a_component_that_is_called_twice_has_no_graph():
    block = nn.Module()
    block.ff = nn.Linear(4, 4)
    leaves, structure = pytree.tree_flatten(((torch.randn(2, 4),), {}))
    with torch.no_grad():
        _, graph = record(lambda x: block.ff(block.ff(x)), {0: block.ff}, leaves, structure)
    assert graph is None


def test_only_the_part_of_a_sum_that_is_read_is_computed():
    def join(x, y):
        joined = torch.cat([x.exp(), y], dim=1) * 3 + 1
        return joined[:, 3:]

    _, graph, hook = recorded(after=join)
    hook.action = Action.REUSE
    x = torch.randn(2, 3, 4)
    with torch.no_grad(), Operators() as operators:
        result = Program(graph, [Action.REUSE]).run([x])
    assert torch.equal(result, hook.kept.output * 3 + 1)
    assert sorted(operators.names) == ["add", "mul"]


def test_slices_of_a_concatenation_are_its_parts():
    def swap(x, y):
        joined = torch.cat([x.exp(), y], dim=1)
        return torch.cat([joined[:, 3:], joined[:, :3]], dim=1)

    block, graph, hook = recorded(after=swap)
    hook.action = Action.REUSE
    x = torch.randn(2, 3, 4)
    with torch.no_grad(), Operators() as operators:
        result = Program(graph, [Action.REUSE]).run([x])
    assert operators.names == ["exp", "cat"]
    with torch.no_grad():
        assert torch.equal(result, block(x))


def test_a_sum_that_is_also_read_whole_is_computed_whole():
    def join(x, y):
        joined = torch.cat([x, y], dim=1) * 3
        return joined[:, 3:] + joined[:, :3] + joined.sum()

    block, graph, hook = recorded(after=join)
    hook.action = Action.REUSE
    x = torch.randn(2, 3, 4)
    with torch.no_grad():
        assert torch.equal(Program(graph, [Action.REUSE]).run([x]), block(x))


@pytest.mark.parametrize("width", [4, 16, 64])
def test_chunks_of_a_linear_layer_are_computed_alone_where_that_gives_the_same_bits(width):
    modulation = nn.Linear(4, 6 * width)

    def scale(x, y):
        _, gate, *_ = modulation(x[:, 0]).chunk(6, dim=1)
        return x + y * gate.sum(1)[:, None, None]

    block, graph, hook = recorded(after=scale)
    hook.action = Action.REUSE
    x = torch.randn(2, 3, 4)
    shapes = []

    class Shapes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            if func is torch.ops.aten.addmm.default:
                shapes.append(result.shape[1])
            return result

    program = Program(graph, [Action.REUSE])
    (exact,) = graph.exact.values()
    with torch.no_grad(), Shapes():
        result = program.run([x])
    assert shapes == [width if exact else 6 * width]
    with torch.no_grad():
        assert torch.equal(result, block(x))


def test_trying_out_parts_of_layers_leaves_the_random_numbers_alone():
    modulation = nn.Linear(4, 24)
    _, graph, _ = recorded(after=lambda x, y: x + y * modulation(x[:, 0]).chunk(6, dim=1)[1][:, None])
    state = torch.get_rng_state()
    Program(graph, [Action.REUSE])
    assert torch.equal(torch.get_rng_state(), state)


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


def test_forwards_of_many_shapes_do_not_pile_up(tiny):
    schedule = reuse_in_turn(tiny)
    with ecad.cached(tiny.pipe, schedule):
        for batch in range(1, 19):
            tiny.run(batch=batch)
    assert len(replay._KNOWN[tiny.pipe.transformer].graphs) == replay._MOST_GRAPHS


def test_rows_of_many_schedules_do_not_pile_up(tiny):
    for seed in range(replay._MOST_PROGRAMS // 3 + 1):
        with ecad.cached(tiny.pipe, tiny.random_schedule(seed)):
            tiny.run(batch=1)
    graphs = replay._KNOWN[tiny.pipe.transformer].graphs.values()
    assert all(len(programs) <= replay._MOST_PROGRAMS for _, programs in filter(None, graphs))


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
