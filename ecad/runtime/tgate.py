"""TGATE's one addition to a schedule: at its gate step the two guidance halves of cross-attention become their mean.

Liu et al., arXiv 2404.02747. Published schedules say so in `custom_compute_attn` entries. From the gate on both halves
of the batch read the same text; with self-attention and feed-forward computed they then predict the same noise, so
guidance has no effect, as in the published runs, which drop half the batch there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from ecad.errors import EcadError, ScheduleError
from ecad.runtime.hooks import Kept
from ecad.schedules import CacheSchedule

_NAME, _KEY, _GATE = "compute_attn_tgate", "custom_compute_attn", "gate_step"
_CROSS_ATTENTION = "attn2"


def gates_of(schedule: CacheSchedule) -> dict[int, set[tuple[str, str]]]:
    """Gate step -> the sites whose kept outputs are averaged there.

    Raises ScheduleError if a block is to be computed in any other way, which the runtime does not know.
    """
    gates: dict[int, set[tuple[str, str]]] = {}
    for (step, block, key), custom in schedule.custom_compute.items():
        if step >= schedule.num_steps:
            continue
        gate = custom["kwargs"].get(_GATE)
        if (custom["name"], key, type(gate), len(custom["kwargs"])) != (_NAME, _KEY, int, 1):
            raise ScheduleError(
                f"schedule {schedule.name!r} computes this in its own way, which the runtime does not know",
                step=f"{step:03d}",
                block=block,
                component=key,
                expected=f"true and false only, or {_NAME} with {_GATE}",
                found=str(custom["name"]),
            )
        gates.setdefault(gate, set()).add((block, _CROSS_ATTENTION))
    return gates


def average(kept: Iterable[Kept], latents: Any) -> None:
    """Put the mean of both halves in place of kept outputs.

    Arguments:
        kept: of cross-attentions; what is not kept at this step is left out.
        latents: what the denoiser denoises, the same in both halves if these are the guidance pair.

    Raises EcadError if they are not.
    """
    half, odd = divmod(len(latents), 2)
    if odd or not torch.equal(latents[:half], latents[half:]):
        raise EcadError(
            "TGATE averages the two guidance halves of one batch: expected a denoiser call with both, found a batch "
            f"of {len(latents)} without them; set a guidance scale above 1"
        )
    for one in kept:
        if one.output is not None:
            first, second = one.output.chunk(2)
            one.output = ((first + second) / 2).repeat(2, *[1] * (first.ndim - 1))
