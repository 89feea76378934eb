"""A denoiser's forward as a list of operators on numbered places; components count as single operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils import _pytree as pytree


class Instruction(NamedTuple):
    """`out = op(*args)`, all of them places.

    `site` is that of the component it calls, if it does; `always` says that it runs even if nobody reads its result.
    """

    op: Callable[..., Any]
    args: tuple[int, ...]
    out: int
    site: int | None = None
    always: bool = False


@dataclass(eq=False)
class Graph:
    """One forward, as it ran.

    Attributes:
        instructions: in the order in which they ran, each distinct one once.
        sources: place -> which of the denoiser's tensors is there.
        constants: place -> literal, or tensor made of literals.
        views: of what is in these places; they are looked at anew for each generation.
        shapes, dtypes: place -> shape and dtype, of tensors.
        outputs: places of what the forward returns, flattened.
        structure: of what it returns.
        inputs: how many tensors go in; they take the first places.
        size: number of places.
        is_pure: whether no operator changes a tensor in place.
        exact: whether a part of a linear layer gives the same bits as the whole layer, where that was tried.
        fused: code -> what it is compiled to.
    """

    instructions: list[Instruction]
    sources: dict[int, int]
    constants: dict[int, Any]
    views: list[Instruction]
    shapes: dict[int, torch.Size]
    dtypes: dict[int, torch.dtype]
    outputs: list[int]
    structure: pytree.TreeSpec
    inputs: int
    size: int
    is_pure: bool
    exact: dict[object, bool] = field(default_factory=dict)
    fused: dict[str, Callable[..., Any]] = field(default_factory=dict)

    def bind(self, tensors: Sequence[Any]) -> dict[int, Any]:
        """What is in each place that does not depend on the inputs.

        Args:
            tensors: the denoiser's.
        """
        values = self.constants | {place: tensors[index] for place, index in self.sources.items()}
        for view in self.views:
            values[view.out] = view.op(*[values[place] for place in view.args])
        return values

    def new_place(self) -> int:
        """A place that nothing has taken yet."""
        self.size += 1
        return self.size - 1


class Call:
    """A component's call, with the arguments that are not tensors as they were.

    Args:
        module: the component.
        leaves, structure: its (args, kwargs), flattened.
    """

    def __init__(self, module: nn.Module, leaves: Sequence[Any], structure: pytree.TreeSpec) -> None:
        self.module, self.structure = module, structure
        self.leaves = [None if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        self.tensors = [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]

    def __call__(self, *tensors: torch.Tensor) -> list[Any]:
        """Call the component on these tensors; its hook keeps the output if it must."""
        leaves = self.leaves.copy()
        for index, tensor in zip(self.tensors, tensors, strict=True):
            leaves[index] = tensor
        args, kwargs = pytree.tree_unflatten(leaves, self.structure)
        return pytree.tree_leaves(self.module(*args, **kwargs))


def as_list(*values: Any) -> list[Any]:
    """The argument of an operator that takes a list of tensors."""
    return list(values)
