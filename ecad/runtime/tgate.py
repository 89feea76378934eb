"""TGATE's one addition to a schedule: at its gate step the two guidance halves of cross-attention become their mean.

Liu et al., arXiv 2404.02747. Published schedules say so in `custom_compute_attn` entries. From the gate on both halves
of the batch read the same text; with all else computed at the gate they then predict the same noise, so guidance has no
effect, and one half is enough.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from ecad.errors import EcadError, ScheduleError
from ecad.runtime.kept_outputs import Kept
from ecad.schedules import CacheSchedule, tgate

_CROSS_ATTENTION = "attn2"


def gates_of(schedule: CacheSchedule) -> dict[int, set[tuple[str, str]]]:
    """Gate step -> the sites whose kept outputs are averaged there.

    Raises:
        ScheduleError: a block is to be computed in another way, which the runtime does not support, or has no
            cross-attention to average.
    """
    if schedule.forecast and schedule.custom_compute:
        expected, found = "one or the other", f"both, in schedule {schedule.name!r}"
        raise ScheduleError("averaged outputs lie on no line to forecast along", expected=expected, found=found)
    gates: dict[int, set[tuple[str, str]]] = {}
    for (step, block, key), custom in schedule.custom_compute.items():
        if step >= schedule.num_steps:
            continue
        gate = tgate.entry_gate(custom)
        if gate is None or key != tgate.KEY:
            raise ScheduleError(
                f"schedule {schedule.name!r} computes this in its own way, which the runtime does not know",
                step=f"{step:03d}",
                block=block,
                component=key,
                expected=f"true and false only, or {tgate.NAME} with {tgate.GATE}",
                found=str(custom["name"]),
            )
        if (block, _CROSS_ATTENTION) not in schedule.sites:
            raise ScheduleError(
                f"schedule {schedule.name!r} averages the outputs of a component that it does not have",
                step=f"{step:03d}",
                block=block,
                component=_CROSS_ATTENTION,
            )
        gates.setdefault(gate, set()).add((block, _CROSS_ATTENTION))
    return gates


def one_half_from(schedule: CacheSchedule, gates: Mapping[int, Collection[tuple[str, str]]]) -> int | None:
    """The row from which on both halves of the batch are the same in all that the denoiser computes; None if there is
    none: every cross-attention is reused from the one gate on, and all else is computed at the gate.
    """
    if len(gates) != 1:
        return None
    [(gate, gated)] = gates.items()
    is_gated = np.array([site in gated for site in schedule.sites])
    every = all(site in gated for site in schedule.sites if site[1] == _CROSS_ATTENTION)
    later = schedule.recompute[gate:]
    return gate if len(later) and every and not later[:, is_gated].any() and later[0, ~is_gated].all() else None


def second_half(inputs: Any) -> Any:
    """The arguments of a forward for the second half of its batch.

    >>> second_half({"hidden_states": torch.arange(4), "guidance": torch.tensor(5.0), "return_dict": False})
    {'hidden_states': tensor([2, 3]), 'guidance': tensor(5.), 'return_dict': False}
    """
    batch = next(len(leaf) for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, torch.Tensor))
    return pytree.tree_map_only(
        torch.Tensor, lambda tensor: tensor[batch // 2 :] if tensor.ndim and len(tensor) == batch else tensor, inputs
    )


def twice(output: Any) -> Any:
    """A forward's output for half a batch, for both halves."""
    return pytree.tree_map_only(torch.Tensor, lambda tensor: torch.cat([tensor, tensor]), output)


def average(kept: Iterable[Kept], latents: Any, one_half: bool) -> None:
    """Put the mean of both halves in place of kept outputs.

    Args:
        kept: of cross-attentions; what is not kept at this step is left out.
        latents: what the denoiser denoises, the same in both halves if these are the guidance pair.
        one_half: keep it for one half of the batch instead of both.

    Raises:
        EcadError: they are not.
    """
    half, odd = divmod(len(latents), 2)
    if odd or not torch.equal(latents[:half], latents[half:]):
        raise EcadError(
            "TGATE averages the two guidance halves of one batch: expected a denoiser call with both, found a batch "
            f"of {len(latents)} without them; set a guidance scale above 1"
        )
    for one in kept:
        output = one.get()
        if output is not None:
            first, second = output.chunk(2)
            mean = (first + second) / 2
            one.keep(mean if one_half else twice(mean))
