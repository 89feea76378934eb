"""What an operator of PyTorch does, as its schema says."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch


def is_random(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether an operator draws random numbers."""
    if torch.Tag.nondeterministic_seeded not in func.tags:
        return False
    names = [argument.name for argument in func._schema.arguments]
    given = dict(zip(names, args, strict=False)) | dict(kwargs)
    return "dropout_p" not in names or given.get("dropout_p", 0.0) != 0.0  # attention draws for its dropout only


def with_names(func: Callable[..., Any], names: tuple[str, ...], *values: Any) -> Any:
    """Call an operator whose last arguments are given by name."""
    by_place = len(values) - len(names)
    return func(*values[:by_place], **dict(zip(names, values[by_place:], strict=True)))


def is_view(op: Any) -> bool:
    """Whether an operator's result shares the memory of an argument."""
    if op is operator.getitem:
        return True
    schema = getattr(op.func if isinstance(op, partial) else op, "_schema", None)
    return schema is not None and any(returned.alias_info is not None for returned in schema.returns)


def written(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """What an operator changes in place among its arguments."""
    arguments = func._schema.arguments
    changed = [argument.name for argument in arguments if argument.alias_info and argument.alias_info.is_write]
    given = dict(zip((argument.name for argument in arguments), args, strict=False)) | dict(kwargs)
    return [given[name] for name in changed if name in given]
