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
from collections.abc import Collection, Iterator, Mapping
from copy import copy
from operator import itemgetter
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as torch_module

_CONTENTS = ("_modules", "_forward_hooks", "_forward_pre_hooks", "_parameters", "_buffers")
# What every module has and no forward without gradients looks at, and what stands in for the denoiser's own methods.
_UNUSED = frozenset(
    name
    for name in vars(nn.Module())
    if name.startswith(("_backward", "_state_dict", "_load_state_dict", "_non_persistent", "_forward"))
    and name not in _CONTENTS
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
        # What has to stay empty: hooks, and what would hold tensors.
        self._empty: list[Mapping[Any, Any]] = []
        # Attributes of objects, by the names of those that count.
        self._attributes: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        # Attributes of classes, and dicts, lists, tuples and sets.
        self._others: list[Any] = []
        # Parameters and buffers of a module, and other tensors: a container and where in it.
        self._holders: list[dict[str, Any]] = []
        self._single: list[tuple[Any, Any]] = []
        self._seen: set[int] = set()
        self._components = [vars(component) for component in components]
        for component in components:
            self._note_hooks(component)
        for part in _outside(denoiser, set(components)):
            if part.training or (part is not denoiser and ("forward" in vars(part) or part._compiled_call_impl)):
                raise Unrecordable
            if part is not denoiser:  # the denoiser's own hooks run outside of what is recorded
                self._note_hooks(part)
            self._note(part)
        self._look_ups = [(itemgetter(*names), found) for names, found in self._attributes.items()]
        self._then = self._state()
        self._others_then = [dict(one) if isinstance(one, Mapping) else copy(one) for one in self._others]
        self._kinds = [_kind(tensor) for tensor in self.tensors()]

    def hold(self) -> bool:
        """Whether everything is as it was, but for the tensors."""
        if any(self._empty) or torch_module._has_any_global_hook():
            return False
        try:
            # In C, where the same object counts as equal without being looked at.
            return self._state() == self._then and self._others == self._others_then
        except (KeyError, RuntimeError, ValueError):  # an attribute is gone, or a tensor was put in another's place
            return False

    def tensors(self) -> list[torch.Tensor]:
        """The parameters, buffers and other tensors that are there now."""
        held = [tensor for holder in self._holders for tensor in holder.values() if tensor is not None]
        return held + [container[key] for container, key in self._single]

    def pointers(self) -> list[int]:
        """Where they lie."""
        return list(map(torch.Tensor.data_ptr, self.tensors()))

    def are_alike(self, tensors: list[torch.Tensor]) -> bool:
        """Whether tensors are of the shapes and types of those that were there."""
        return [_kind(tensor) for tensor in tensors] == self._kinds

    def _state(self) -> list[Any]:
        """What computes each component; how many attributes each object has, and those that count."""
        state: list[Any] = [[attributes.get("forward") for attributes in self._components]]
        for look_up, attributes in self._look_ups:
            state += list(map(len, attributes)), list(map(look_up, attributes))
        return state

    def _note_hooks(self, part: nn.Module) -> None:
        if part._forward_hooks or part._forward_pre_hooks:
            raise Unrecordable
        self._empty += [part._forward_hooks, part._forward_pre_hooks]

    def _note(self, part: nn.Module) -> None:
        for holder in (part._parameters, part._buffers):
            (self._holders if holder else self._empty).append(holder)
        self._note_dict(part._modules)
        self._note_attributes(vars(part))
        for cls in type(part).__mro__[: type(part).__mro__.index(nn.Module)]:
            if id(cls) not in self._seen:
                self._seen.add(id(cls))
                self._note_dict(vars(cls))

    def _note_dict(self, one: Mapping[Any, Any]) -> None:
        (self._others if one else self._empty).append(one)

    def _note_attributes(self, attributes: dict[str, Any]) -> None:
        if not attributes:
            self._empty.append(attributes)
        counting = tuple([name for name in attributes if name not in _UNUSED and not name.startswith("_ecad")])
        if counting:
            self._attributes.setdefault(counting, []).append(attributes)
        for name in counting:
            if name not in _CONTENTS:
                self._look_into(attributes[name], attributes, name)

    def _look_into(self, value: Any, container: Any, key: Any) -> None:
        if isinstance(value, torch.Tensor):
            self._single.append((container, key))
            return
        if id(value) in self._seen or isinstance(value, (*_FIXED, *_CODE, nn.Module)):
            return
        self._seen.add(id(value))
        if isinstance(value, dict):
            self._note_dict(value)
            for name, part in value.items():
                self._look_into(part, value, name)
        elif isinstance(value, (list, tuple)):
            self._others.append(value)
            for place, part in enumerate(value):
                self._look_into(part, value, place)
        elif isinstance(value, (set, frozenset)):
            self._others.append(value)
            if not all(isinstance(part, (*_FIXED, *_CODE)) for part in value):
                raise Unrecordable
        elif hasattr(value, "__dict__"):
            self._note_attributes(vars(value))
        else:
            raise Unrecordable


def _outside(module: nn.Module, components: Collection[nn.Module]) -> Iterator[nn.Module]:
    yield module
    for child in module.children():
        if child not in components:
            yield from _outside(child, components)


def _kind(tensor: torch.Tensor) -> object:
    if type(tensor) not in _PLAIN_TENSORS:
        raise Unrecordable
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device
