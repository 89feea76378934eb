"""What a recorded forward relies on beside its inputs, checked before every replay.

A recording holds no weight and no number that was computed from one. What it does hold are the operators that the
denoiser's own code chose, and that choice may depend on any attribute of any module outside of the components. So all
of those are compared, and where something is found that cannot be compared, nothing is recorded.
"""

from __future__ import annotations

import enum
import functools
import logging
import types
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as torch_module

_CONTENTS = ("_modules", "_forward_hooks", "_forward_pre_hooks")
_TENSORS = ("_parameters", "_buffers")
# What every module has and no forward without gradients looks at, and what stands in for the denoiser's own methods.
_UNUSED = frozenset(
    name
    for name in vars(nn.Module())
    if name.startswith(("_backward", "_state_dict", "_load_state_dict", "_non_persistent", "_forward"))
) | {"forward", "cache_context", "__reduce_ex__"}
_FIXED = (str, bytes, bool, int, float, complex, type(None), torch.dtype, torch.device, torch.Size, enum.Enum, range)
_CODE = (
    *(type, types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType),
    *(functools.partial, logging.Logger),
)
_PLAIN_TENSORS = (torch.Tensor, nn.Parameter, nn.Buffer)


class Unrecordable(Exception):
    """A forward that a replay could get wrong."""


class Facts:
    """A denoiser at the moment in which a forward of it is recorded.

    Args:
        denoiser: the module.
        components: its sites' modules, whose insides are not recorded.

    Raises:
        Unrecordable: somebody else takes part in its forward, or it holds what cannot be compared.
    """

    def __init__(self, denoiser: nn.Module, components: Collection[nn.Module]) -> None:
        self._now: list[Any] = []
        self._then: list[Any] = []
        self._holders: list[dict[str, Any]] = []
        self._seen: set[int] = set()
        self._forwards = [(vars(component), vars(component)["forward"]) for component in components]
        for component in components:
            self._note_hooks(component)
        for part in _outside(denoiser, set(components)):
            if part.training or (part is not denoiser and ("forward" in vars(part) or part._compiled_call_impl)):
                raise Unrecordable
            if part is not denoiser:  # the denoiser's own hooks run outside of what is recorded
                self._note_hooks(part)
            self._note(part)
        self._kinds = [_kind(tensor) for tensor in self.tensors()]

    def hold(self) -> bool:
        """Whether everything is as it was, but for the tensors."""
        try:
            same = self._now == self._then  # in C, where the same object counts as equal without being looked at
        except (RuntimeError, ValueError):  # a tensor was put in another's place
            return False
        forwards = all(holder.get("forward") is forward for holder, forward in self._forwards)
        return same and forwards and not torch_module._has_any_global_hook()

    def tensors(self) -> list[torch.Tensor]:
        """The parameters, buffers and other tensors that are there now."""
        return [tensor for holder in self._holders for tensor in holder.values() if tensor is not None]

    def pointers(self) -> list[int]:
        """Where they lie."""
        return [tensor.data_ptr() for holder in self._holders for tensor in holder.values() if tensor is not None]

    def are_alike(self, tensors: list[torch.Tensor]) -> bool:
        """Whether tensors are of the shapes and types of those that were there."""
        return [_kind(tensor) for tensor in tensors] == self._kinds

    def _note_hooks(self, part: nn.Module) -> None:
        if part._forward_hooks or part._forward_pre_hooks:
            raise Unrecordable
        self._watch(part._forward_hooks, {})
        self._watch(part._forward_pre_hooks, {})

    def _note(self, part: nn.Module) -> None:
        self._watch(part._modules, dict(part._modules))
        self._holders += [part._parameters, part._buffers]
        self._attributes(vars(part))
        for cls in type(part).__mro__[: type(part).__mro__.index(nn.Module)]:
            if id(cls) not in self._seen:
                self._seen.add(id(cls))
                self._watch(vars(cls), dict(vars(cls)))

    def _attributes(self, attributes: dict[str, Any]) -> None:
        self._watch(attributes, dict(attributes))
        for name, value in attributes.items():
            if name not in _UNUSED and name not in (*_CONTENTS, *_TENSORS) and not name.startswith("_ecad"):
                self._look_into(value)

    def _look_into(self, value: Any) -> None:
        if id(value) in self._seen or isinstance(value, (*_FIXED, *_CODE, nn.Module)):
            return
        self._seen.add(id(value))
        if isinstance(value, torch.Tensor):
            self._holders.append({"": value})
        elif isinstance(value, dict):
            self._watch(value, dict(value))
            for part in (*value.keys(), *value.values()):
                self._look_into(part)
        elif isinstance(value, (list, tuple, set, frozenset)):
            self._watch(value, type(value)(value) if type(value) in (list, set) else value)
            for part in value:
                self._look_into(part)
        elif hasattr(value, "__dict__"):
            self._attributes(vars(value))
        else:
            raise Unrecordable

    def _watch(self, now: Any, then: Any) -> None:
        self._now.append(now)
        self._then.append(then)


def _outside(module: nn.Module, components: Collection[nn.Module]) -> Iterator[nn.Module]:
    yield module
    for child in module.children():
        if child not in components:
            yield from _outside(child, components)


def _kind(tensor: torch.Tensor) -> object:
    if type(tensor) not in _PLAIN_TENSORS:
        raise Unrecordable
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device
