"""Rewrites of a recorded forward: fewer operators, on fewer numbers, and the same bits."""

from __future__ import annotations

import pytest
import torch
from recorded_block import Operators, Recorded, some_input
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode


@torch.no_grad()
def test_only_the_part_of_a_sum_that_is_read_is_computed():
    def join(x, y):
        joined = torch.cat([x.exp(), y], dim=1) * 3 + 1
        return joined[:, 3:]

    block = Recorded(after=join)
    x = some_input()
    with Operators() as operators:
        result = block.run(x)
    assert torch.equal(result, block.kept.get() * 3 + 1)
    assert sorted(operators.names) == ["add", "mul"]


@pytest.mark.parametrize(("by", "names"), [(1, ["add"]), (1.0, ["add"]), (2, ["mul", "add"])])
@torch.no_grad()
def test_a_product_with_one_is_left_out(by, names):
    block = Recorded(after=lambda x, y: by * x + y)
    x = torch.tensor([0.0, -0.0, float("inf"), 1e-45]).expand(2, 3, 4).contiguous()
    with Operators() as operators:
        result = block.run(x)
    assert operators.names == names
    assert torch.equal(result, block.plain(x))


@torch.no_grad()
def test_a_view_of_a_squeezed_tensor_is_a_view_of_the_tensor():
    block = Recorded(after=lambda x, y: (x + y).unsqueeze(0).squeeze(0).reshape(6, 4))
    x = some_input()
    with Operators() as operators:
        result = block.run(x)
    assert operators.names == ["add", "unsqueeze", "view"]
    assert torch.equal(result, block.plain(x))


@torch.no_grad()
def test_slices_of_a_concatenation_are_its_parts():
    def swap(x, y):
        joined = torch.cat([x.exp(), y], dim=1)
        return torch.cat([joined[:, 3:], joined[:, :3]], dim=1)

    block = Recorded(after=swap)
    x = some_input()
    with Operators() as operators:
        result = block.run(x)
    assert operators.names == ["exp", "cat"]
    assert torch.equal(result, block.plain(x))


@torch.no_grad()
def test_a_sum_that_is_also_read_whole_is_computed_whole():
    def join(x, y):
        joined = torch.cat([x, y], dim=1) * 3
        return joined[:, 3:] + joined[:, :3] + joined.sum()

    block = Recorded(after=join)
    x = some_input()
    assert torch.equal(block.run(x), block.plain(x))


class Modulated(nn.Module):
    """What a block does after its component: chunks of one linear layer."""

    def __init__(self, width):
        super().__init__()
        self.modulation = nn.Linear(4, 6 * width)

    def forward(self, x, y):
        _, gate, *_ = self.modulation(x[:, 0]).chunk(6, dim=1)
        return x + y * gate.sum(1)[:, None, None]


@pytest.mark.parametrize("width", [4, 16, 64])
@torch.no_grad()
def test_chunks_of_a_linear_layer_are_computed_alone_where_that_gives_the_same_bits(width):
    block = Recorded(after=Modulated(width).eval())
    x, shapes = some_input(), []

    class Shapes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            if func is torch.ops.aten.addmm.default:
                shapes.append(result.shape[1])
            return result

    block.run(x)
    (exact,) = block.graph.exact.values()
    with Shapes():
        result = block.run(x)
    assert shapes == [width if exact else 6 * width]
    assert torch.equal(result, block.plain(x))


def test_trying_out_parts_of_layers_leaves_the_random_numbers_alone():
    block = Recorded(after=Modulated(4).eval())
    state = torch.get_rng_state()
    block.run(some_input())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("batch", "names"), [(1, ["sum", "mul", "add"]), (2, ["sum", "unsqueeze", "mul", "add"])])
@torch.no_grad()
def test_a_gate_of_one_sample_is_broadcast_without_a_view(batch, names):
    block = Recorded(after=lambda x, y: x + x.sum(1).unsqueeze(1) * y, batch=batch)
    x = some_input(batch=batch)
    with Operators() as operators:
        result = block.run(x)
    assert operators.names == names
    assert torch.equal(result, block.plain(x))


@torch.no_grad()
def test_a_view_stays_whose_shape_the_result_has():
    block = Recorded(after=lambda x, y: (y + 1).sum() + (x.sum(1).unsqueeze(1) + 1), batch=1)
    x = some_input(batch=1)
    assert torch.equal(block.run(x), block.plain(x))
    assert block.run(x).shape == (1, 1, 4)


@torch.no_grad()
def test_a_slice_of_a_sum_is_a_slice_of_an_argument_with_fewer_dimensions():
    block = Recorded(after=lambda x, y: (y + x[0, 0].exp())[..., 1:])
    x = some_input()
    assert torch.equal(block.run(x), block.plain(x))


@torch.no_grad()
def test_parts_of_a_list_of_which_some_are_read():
    def join(x, y):
        one, _, three, four = x.exp().unbind(-1)
        return torch.stack([four, y[..., 0], one + three])

    block = Recorded(after=join)
    x = some_input()
    with Operators() as operators:
        result = block.run(x)
    assert torch.equal(result, block.plain(x))
    assert operators.names == ["exp", "unbind", "select", "add", "stack"]
