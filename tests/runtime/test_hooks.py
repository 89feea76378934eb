"""Overriding single methods of single objects, and putting them back."""

from __future__ import annotations

import copy
import functools
import inspect

import diffusers
import pytest
import torch
from torch import nn

from ecad.runtime.hooks import ComponentHook, empty_output
from ecad.runtime.kept_outputs import CacheStats, Kept, Line, size_of
from ecad.runtime.overrides import After, Override
from ecad.schedules.plan import Action


def wrap(module: nn.Module) -> None:
    """What accelerate and diffusers do to a forward."""
    forward = module.forward
    module._old_forward = forward
    module.forward = functools.update_wrapper(functools.partial(lambda module, x: forward(x), module), forward)


def test_an_override_comes_off_without_a_trace():
    module = nn.Linear(2, 2)
    before = dict(vars(module))
    override = Override(module, "forward")
    assert module.forward is override.method
    assert torch.equal(module(torch.ones(2)), nn.Linear.forward(module, torch.ones(2)))
    override.remove()
    override.remove()
    assert vars(module) == before


def test_what_was_there_before_comes_back():
    module = nn.Linear(2, 2)
    wrap(module)
    wrapped = module.forward
    Override(module, "forward").remove()
    assert module.forward is wrapped


@pytest.mark.parametrize("first", [0, 1])
def test_overrides_come_off_in_any_order(first):
    scheduler = diffusers.DDIMScheduler()
    before = dict(vars(scheduler))
    calls = []
    overrides = [After(scheduler, "set_timesteps", functools.partial(calls.append, name)) for name in "ab"]
    scheduler.set_timesteps(4)
    assert calls == ["a", "b"]
    overrides[first].remove()
    scheduler.set_timesteps(4)
    assert calls == ["a", "b", "ba"[first]]
    overrides[1 - first].remove()
    assert {name for name in vars(scheduler) if name not in before} == set()


def test_an_override_below_others_steps_aside():
    module = nn.Linear(2, 2)
    hook = ComponentHook(module, Kept(CacheStats()))
    wrap(module)
    hook.action = Action.SKIP
    assert module(torch.ones(2)).shape == (0,)
    hook.remove()
    assert module(torch.ones(2)).shape == (2,)
    module.forward = module._old_forward  # the other tool goes, and leaves the removed hook
    assert torch.equal(module(torch.ones(2)), nn.Linear.forward(module, torch.ones(2)))
    ComponentHook(module, Kept(CacheStats())).remove()
    assert "forward" not in vars(module)


def test_a_copy_has_the_original_method_of_its_own():
    scheduler = diffusers.DDIMScheduler()
    calls = []
    After(scheduler, "set_timesteps", lambda: calls.append(1))
    twin = copy.deepcopy(scheduler)
    twin.set_timesteps(3)
    assert calls == []
    assert twin.num_inference_steps == 3
    assert scheduler.num_inference_steps is None


def test_a_copied_module_computes_with_its_own_weights():
    module = nn.Linear(2, 2)
    hook = ComponentHook(module, Kept(CacheStats()))
    hook.action = Action.SKIP
    twin = copy.deepcopy(module)
    nn.init.zeros_(module.weight)
    assert torch.equal(twin(torch.ones(2)), nn.Linear.forward(twin, torch.ones(2)))
    assert not torch.equal(twin(torch.ones(2)), twin.bias)


@pytest.mark.parametrize("name", ["step", "set_timesteps"])
def test_pipelines_can_still_inspect_signatures(name):
    scheduler = diffusers.DDIMScheduler()
    bare = inspect.signature(getattr(scheduler, name))
    After(scheduler, name, lambda: None)
    assert inspect.signature(getattr(scheduler, name)) == bare


def test_a_hook_does_what_it_is_told():
    stats = CacheStats()
    module = nn.Linear(3, 2, bias=False)
    hook = ComponentHook(module, Kept(stats))
    one, two = torch.ones(3), torch.full((3,), 2.0)
    computed = module(two)
    hook.action = Action.KEEP
    kept = module(one)
    assert stats.cached_bytes == 8
    hook.action = Action.REUSE
    assert module(two) is kept
    hook.action = Action.COMPUTE
    assert torch.equal(module(two), computed)
    hook.action = Action.SKIP
    assert module(two).shape == (0,)
    hook.action = Action.FREE
    assert module(two) is kept
    assert stats.cached_bytes == 0
    assert stats.peak_cached_bytes == 8
    # Nothing to return any more: a first visit computes, and keeps if a later step reuses.
    assert torch.equal(module(two), computed)
    assert stats.cached_bytes == 0
    hook.action = Action.REUSE
    assert torch.equal(module(two), computed)
    assert stats.cached_bytes == 8


def test_a_line_is_drawn_through_the_tensors_of_an_output_and_nothing_else():
    stats = CacheStats()
    kept = Kept(stats)
    kept.line = Line(remembered=True)
    kept.keep((torch.tensor([1.0, 2.0]), None, "text"))
    assert stats.cached_bytes == 8
    kept.line = Line(gap=2)
    kept.keep((torch.tensor([3.0, 2.0]), None, "text"))
    assert kept.get()[0].tolist() == [4.0, 2.0]
    assert kept.get()[1:] == (None, "text")
    assert stats.cached_bytes == 8
    assert stats.peak_cached_bytes == 8
    kept.free()
    assert stats.cached_bytes == 0


def test_an_unread_output_has_its_batch_and_length_but_no_width():
    hidden = torch.ones(2, 5, 8, dtype=torch.bfloat16)
    assert empty_output(hidden).shape == empty_output(hidden_states=hidden).shape == (2, 5, 0)
    assert empty_output(hidden).dtype == torch.bfloat16
    image, text = empty_output(hidden_states=hidden, encoder_hidden_states=torch.ones(2, 3, 8))
    assert (image.shape, text.shape) == ((2, 5, 0), (2, 3, 0))


def test_size_is_that_of_the_memory_kept_alive():
    tensor = torch.ones(4, 8)
    assert size_of(tensor) == 128
    assert size_of((tensor, torch.ones(2, dtype=torch.bfloat16), None)) == 132
    assert size_of(tensor[:1]) == 128
    assert size_of(tensor.split(2)) == 128
