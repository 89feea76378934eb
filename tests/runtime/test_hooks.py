"""Overriding single methods of single objects, and putting them back."""

from __future__ import annotations

import copy
import functools
import inspect
import io
from threading import Thread

import accelerate
import diffusers
import pytest
import torch
from diffusers.hooks import HookRegistry, ModelHook
from torch import nn

from ecad.runtime.hooks import ComponentHook, Now, empty_output
from ecad.runtime.kept_outputs import size_of
from ecad.runtime.overrides import After, Override, overrides_on


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


class Skipping:
    """A denoiser's forward in which nobody reads what components return."""

    def call(self, site, compute, args, kwargs):
        return empty_output(*args, **kwargs)


def hooked(module: nn.Module) -> ComponentHook:
    hook = ComponentHook(module, 0, Now())
    hook.now.forward = Skipping()
    return hook


def closed_wrap(module: nn.Module) -> None:
    """Like `wrap`, but nobody can see what lies below."""
    forward = module.forward
    module.forward = lambda x: forward(x)


@pytest.mark.parametrize("wrap", [wrap, closed_wrap])
def test_an_override_below_others_steps_aside(wrap):
    module = nn.Linear(2, 2)
    hook = hooked(module)
    wrap(module)
    assert module(torch.ones(2)).shape == (0,)
    hook.remove()
    assert module(torch.ones(2)).shape == (2,)
    assert copy.deepcopy(module)(torch.ones(2)).shape == (2,)


def test_what_a_tool_remembers_of_an_override_below_it_is_put_right():
    module = nn.Linear(2, 2)
    hook = hooked(module)
    wrap(module)
    hook.remove()
    assert overrides_on(module) == []
    module.forward = module._old_forward  # the other tool goes
    assert torch.equal(module(torch.ones(2)), nn.Linear.forward(module, torch.ones(2)))
    assert module.forward == functools.partial(nn.Linear.forward, module) or module.forward.__self__ is module


@pytest.mark.parametrize("when", ["gone", "there"])
def test_what_diffusers_remembers_of_an_override_below_it_is_put_right(when):
    module = nn.Linear(2, 2)
    before = set(vars(module))
    hook = hooked(module)
    registry = HookRegistry.check_if_exists_or_initialize(module)
    registry.register_hook(ModelHook(), "other")
    assert module(torch.ones(2)).shape == (0,)
    if when == "gone":
        registry.remove_hook("other")
    hook.remove()
    assert overrides_on(module) == []
    assert torch.equal(module(torch.ones(2)), nn.Linear.forward(module, torch.ones(2)))
    assert set(vars(module)) - before <= {"_diffusers_hook", "forward"}


def test_an_override_that_was_left_behind_goes_with_the_next_one():
    module = nn.Linear(2, 2)
    hook = hooked(module)
    left = module.forward
    closed_wrap(module)
    hook.remove()
    module.forward = left
    assert module(torch.ones(2)).shape == (2,)
    hooked(module).remove()
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


def saved_and_loaded(module: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("how", [copy.deepcopy, saved_and_loaded])
def test_a_copied_module_computes_with_its_own_weights_and_has_no_trace(how):
    module = nn.Linear(2, 2)
    before = set(vars(module))
    hooked(module)
    twin = how(module)
    assert set(vars(twin)) == before
    nn.init.zeros_(module.weight)
    assert torch.equal(twin(torch.ones(2)), nn.Linear.forward(twin, torch.ones(2)))
    assert not torch.equal(twin(torch.ones(2)), twin.bias)


def test_a_copy_has_what_others_put_below_an_override():
    module = nn.Linear(2, 2)
    wrap(module)
    hooked(module)
    twin = copy.deepcopy(module)
    assert overrides_on(twin) == []
    assert torch.equal(twin(torch.ones(2)), nn.Linear.forward(module, torch.ones(2)))


def test_a_copy_has_what_others_put_above_an_override():
    module = nn.Linear(2, 2)
    hooked(module)
    accelerate.hooks.add_hook_to_module(module, accelerate.hooks.ModelHook())
    twin = copy.deepcopy(module)
    assert overrides_on(twin) == []
    assert torch.equal(twin(torch.ones(2)), nn.Linear.forward(module, torch.ones(2)))


@pytest.mark.parametrize("name", ["step", "set_timesteps"])
def test_pipelines_can_still_inspect_signatures(name):
    scheduler = diffusers.DDIMScheduler()
    bare = inspect.signature(getattr(scheduler, name))
    After(scheduler, name, lambda: None)
    assert inspect.signature(getattr(scheduler, name)) == bare


def test_a_hook_asks_the_forward_of_its_own_thread():
    module = nn.Linear(2, 2)
    hooked(module)
    shapes = []
    thread = Thread(target=lambda: shapes.append(module(torch.ones(2)).shape))
    thread.start()
    thread.join()
    assert (module(torch.ones(2)).shape, shapes) == ((0,), [(2,)])


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
