"""What one denoiser forward is given: shapes, timestep, and the conditioning that tells passes apart."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from ecad.runtime.rows import Time, time_of

# Parts of the names of arguments that come from the prompt or the picture asked for.
_PROMPTS = ("encoder", "prompt", "text", "cap_feats", "embeds", "pooled", "label", "context", "input_ids", "cond")
_COMPARED = (torch.Tensor, bool, int, str, type(None))


class Leaf(NamedTuple):
    """One value among a forward's arguments; a list, tuple or dict comes before what it holds.

    Attributes:
        name: of the argument it belongs to, and the keys of dicts in it.
        value: it.
        version: how often it had been changed in place, if it is a tensor that counts this.
    """

    name: str
    value: Any
    version: int | None


class Inputs:
    """The arguments of one forward.

    Args:
        names: of the denoiser's parameters, as `parameter_names` gives them.
        args, kwargs: of the forward.

    Attributes:
        args, kwargs: the same.
        leaves: every value among them.
        tensors: those among the values.
        time: the timestep; None if there is none.
        shapes: shape and device of every tensor; autocast changes dtypes on the way.
        others: everything but the latents and the timestep.
    """

    def __init__(self, names: Sequence[str], args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        self.args, self.kwargs = args, kwargs
        given = [*zip(names, args, strict=False), *kwargs.items(), *(("", value) for value in args[len(names) :])]
        latents = names[0] if names else next((name for name, _ in given), "")
        self.leaves: list[Leaf] = []
        for name, value in given:
            _collect(name, value, self.leaves)
        self.tensors: list[torch.Tensor] = [leaf.value for leaf in self.leaves if _is_tensor(leaf.value)]
        self.shapes = tuple([(tensor.shape, tensor.device) for tensor in self.tensors])
        self.time: Time | None = None
        self.others: list[Leaf] = []
        for leaf in self.leaves:
            if _is_time(leaf.name):
                if self.time is None and _is_number(leaf.value):
                    self.time = time_of(leaf.value)
            elif leaf.name != latents and isinstance(leaf.value, _COMPARED):
                self.others.append(leaf)


def parameter_names(module: nn.Module) -> list[str]:
    """The names of what a denoiser's forward takes by place, latents first."""
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = inspect.signature(type(module).forward).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind in kinds][1:]


def unchanged(
    before: Sequence[Leaf], now: Sequence[Leaf], compared: Sequence[bool], in_content: bool
) -> list[bool] | None:
    """Tell which values are the same in two forwards; None if the two do not have the same arguments.

    Args:
        before, now: of one forward and another.
        compared: for each value whether to look at it; the others count as changed.
        in_content: two tensors that hold the same numbers are the same, too.
    """
    if [leaf.name for leaf in before] != [leaf.name for leaf in now]:
        return None
    return [asked and _is_same(one, other, in_content) for asked, one, other in zip(compared, before, now, strict=True)]


def is_of_prompt(leaf: Leaf) -> bool:
    """Whether a value says what is asked for: it is the same in all rows, and differs between passes."""
    return not _is_tensor(leaf.value) or any(part in leaf.name for part in _PROMPTS)


def _is_same(before: Leaf, now: Leaf, in_content: bool) -> bool:
    one, other = before.value, now.value
    if one is other:
        return before.version == now.version
    if not (_is_tensor(one) and _is_tensor(other)):
        return type(one) is type(other) and bool(one == other)
    if (one.shape, one.dtype, one.device) != (other.shape, other.dtype, other.device):
        return False
    if _is_one_view(one, other):
        return before.version == now.version
    return in_content and not one.is_meta and bool(torch.equal(one, other))


def _is_one_view(one: torch.Tensor, other: torch.Tensor) -> bool:
    if not type(one) is type(other) is torch.Tensor or one.is_meta:
        return False
    return (one.data_ptr(), one.stride()) == (other.data_ptr(), other.stride())


def _collect(name: str, value: Any, leaves: list[Leaf]) -> None:
    leaves.append(Leaf(name, value, _version(value)))
    if isinstance(value, (list, tuple)):
        for part in value:
            _collect(name, part, leaves)
    elif isinstance(value, dict):
        for key, part in value.items():
            _collect(f"{name}.{key}", part, leaves)


def _is_time(name: str) -> bool:
    return name in ("t", "ts") or (("timestep" in name or "sigma" in name) and not name.endswith("cond"))


def _is_number(value: Any) -> bool:
    return _is_tensor(value) or isinstance(value, (int, float))


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def _version(value: Any) -> int | None:
    return None if not _is_tensor(value) or value.is_inference() else value._version
