"""What a schedule keeps: bytes of features that wait to be reused, known without weights."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from ecad.cost.architectures import Architecture
from ecad.cost.inputs import forward_inputs
from ecad.cost.macs import macs_table
from ecad.errors import EcadError
from ecad.runtime.discovery import discover
from ecad.runtime.families import readers, running_order
from ecad.runtime.memory import output_sizes
from ecad.runtime.plan import peaks
from ecad.schedules import CacheSchedule, Sites


def kept_bytes(schedule: CacheSchedule, architecture: Architecture) -> int:
    """Most bytes of kept features at any moment of one image, guidance pair included, in 16-bit numbers.

    Args:
        schedule: of the architecture's model.
        architecture: at its own image size.

    Raises:
        EcadError: as `forward_inputs` does.

    >>> from ecad.cost import find_architecture
    >>> from ecad.schedules import heuristics, pixart_sites
    >>> kept_bytes(heuristics.every_n(pixart_sites(28), 20, n=2), find_architecture("PixArtAlphaImageGenerator"))
    99090432
    """
    many = kept_bytes_of_many(schedule.recompute[None], schedule.sites, architecture, schedule.forecast)
    return int(many[0])


def kept_bytes_of_many(
    recompute: np.ndarray, sites: Sites, architecture: Architecture, forecast: bool = False
) -> np.ndarray:
    """`kept_bytes` of many schedules of one model.

    Args:
        recompute: bool (schedules, steps, sites), at least one step.
        sites: of the architecture's model.
        architecture: at its own image size.
        forecast: whether the schedules do.

    Returns:
        int64 (schedules,).

    Raises:
        EcadError: as `forward_inputs` does.

    >>> from ecad.cost import find_architecture
    >>> from ecad.schedules import heuristics, pixart_sites
    >>> bits = heuristics.every_n(pixart_sites(28), 20, n=2).recompute
    >>> kept_bytes_of_many(bits[None], pixart_sites(28), find_architecture("PixArtAlphaImageGenerator")).tolist()
    [99090432]
    """
    return peaks(recompute, readers(sites), np.array(_sizes(architecture)), running_order(sites), forecast)


def sites_within(max_bytes: int, architecture: Architecture, forecast: bool = False) -> np.ndarray:
    """Which sites may be reused so that no schedule keeps more than so many bytes of one image (see `kept_bytes`).

    Those that save the most MACs a kept byte come first.

    Args:
        max_bytes: at any moment.
        architecture: at its own image size.
        forecast: whether the schedules do.

    Returns:
        bool (sites,).

    Raises:
        EcadError: not even the smallest output may be kept; or as `forward_inputs` does.

    >>> from ecad.cost import find_architecture
    >>> from ecad.schedules import pixart_sites
    >>> chosen = sites_within(50_000_000, find_architecture("PixArtAlphaImageGenerator"))
    >>> int(chosen.sum()), sorted({component for (_, component), yes in zip(pixart_sites(28), chosen) if yes})
    (42, ['attn1', 'ff'])
    """
    table, sizes = macs_table(architecture), np.array(_sizes(architecture))
    ranked = np.argsort(-table.per_site / sizes, kind="stable")
    # Row i may reuse the i + 1 best sites, and does, at every second step: nothing keeps more.
    rank = np.argsort(ranked)
    reused = rank[None] <= np.arange(len(rank))[:, None]
    recompute = np.stack([np.ones_like(reused), ~reused] * 3, axis=1)
    fits = kept_bytes_of_many(recompute, table.sites, architecture, forecast) <= max_bytes
    if not fits.any():
        expected = f"at least {sizes.min():,} bytes, the smallest output of a site"
        raise EcadError(f"limit on kept features: expected {expected}, found {max_bytes:,}")
    return np.asarray(reused[np.flatnonzero(fits)[-1]])


@lru_cache(maxsize=16)
def _sizes(architecture: Architecture) -> tuple[int, ...]:
    import diffusers

    inputs = forward_inputs(architecture, architecture.height, architecture.width, architecture.text_tokens)
    with torch.device("meta"):
        transformer = getattr(diffusers, architecture.transformer["_class_name"]).from_config(architecture.transformer)
    sizes = output_sizes(transformer, discover(transformer), (), inputs)
    return tuple((sizes // 2).tolist())  # counted in the 32-bit numbers of the meta device
