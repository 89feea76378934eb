"""What a schedule keeps: bytes of features that wait to be reused, known without weights."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from ecad.cost.architectures import Architecture
from ecad.cost.inputs import forward_inputs
from ecad.cost.macs import macs_table
from ecad.errors import EcadError
from ecad.runtime.output_sizes import output_sizes
from ecad.schedules import CacheSchedule, Sites
from ecad.schedules.plan import peaks
from ecad.sites.discovery import discover
from ecad.sites.readers import readers, running_order


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
        EcadError: not even the best site's output may be kept; or as `forward_inputs` does.

    >>> from ecad.cost import find_architecture
    >>> from ecad.schedules import pixart_sites
    >>> chosen = sites_within(50_000_000, find_architecture("PixArtAlphaImageGenerator"))
    >>> int(chosen.sum()), sorted({component for (_, component), yes in zip(pixart_sites(28), chosen) if yes})
    (42, ['attn1', 'ff'])
    """
    table, (*by_site, of_denoiser) = macs_table(architecture), _sizes(architecture)
    sizes = np.array(by_site)
    ranked = np.argsort(-table.per_site / sizes, kind="stable")
    # All of them kept at once, and beside each the output that its next line begins in.
    most = sizes[ranked].cumsum() * (2 if forecast else 1)
    # Only where no site computes, the denoiser's own output waits, too.
    most[-1] += 2 * of_denoiser if forecast else 0
    if most[0] > max_bytes:
        expected = f"at least {most[0]:,} bytes, for the site that saves most"
        raise EcadError(f"limit on kept features: expected {expected}, found {max_bytes:,}")
    chosen = np.zeros(len(sizes), dtype=bool)
    chosen[ranked[most <= max_bytes]] = True
    return chosen


@lru_cache(maxsize=16)
def _sizes(architecture: Architecture) -> tuple[int, ...]:
    """Bytes of each site's output, and of the denoiser's."""
    if architecture.measured is not None:
        return tuple(2 * numbers for numbers in architecture.measured["kept_numbers"])
    import diffusers

    inputs = forward_inputs(architecture, architecture.height, architecture.width, architecture.text_tokens)
    with torch.device("meta"):
        transformer = getattr(diffusers, architecture.transformer["_class_name"]).from_config(architecture.transformer)
    sizes = output_sizes(transformer, discover(transformer), (), inputs)
    return tuple((sizes // 2).tolist())  # counted in the 32-bit numbers of the meta device
