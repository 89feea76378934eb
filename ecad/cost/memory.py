"""The peak memory of a schedule's cache: bytes of the outputs that are kept for reuse. Needs no weights."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ecad.cost.architectures import Architecture
from ecad.cost.inputs import forward_inputs
from ecad.cost.macs import macs_table
from ecad.cost.measure import meta_denoiser
from ecad.errors import EcadError
from ecad.runtime.output_sizes import output_sizes
from ecad.schedules import CacheSchedule, Sites
from ecad.schedules.plan import peaks
from ecad.sites.discovery import discover
from ecad.sites.readers import readers, running_order


def kept_bytes(schedule: CacheSchedule, architecture: Architecture) -> int:
    """The peak of cached bytes while one image is made, including the guidance pair, in 16-bit numbers.

    Args:
        schedule: a schedule of the architecture's model.
        architecture: the denoiser, at its own image size.

    Raises:
        EcadError: the denoiser's inputs are not known.

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
        sites: the sites of the architecture's model.
        architecture: the denoiser, at its own image size.
        forecast: whether the schedules extrapolate.

    Returns:
        int64 (schedules,).

    Raises:
        EcadError: the denoiser's inputs are not known.

    >>> from ecad.cost import find_architecture
    >>> from ecad.schedules import heuristics, pixart_sites
    >>> bits = heuristics.every_n(pixart_sites(28), 20, n=2).recompute
    >>> kept_bytes_of_many(bits[None], pixart_sites(28), find_architecture("PixArtAlphaImageGenerator")).tolist()
    [99090432]
    """
    return peaks(recompute, readers(sites), np.array(_sizes(architecture)), running_order(sites), forecast)


def sites_within(max_bytes: int, architecture: Architecture, forecast: bool = False) -> np.ndarray:
    """Choose the sites that may be reused so that no schedule exceeds a limit on `kept_bytes`.

    Sites that save the most MACs per kept byte are chosen first.

    Args:
        max_bytes: the limit.
        architecture: the denoiser, at its own image size.
        forecast: whether the schedules extrapolate.

    Returns:
        bool (sites,).

    Raises:
        EcadError: the limit does not allow any site, or the denoiser's inputs are not known.

    >>> from ecad.cost import find_architecture
    >>> from ecad.schedules import pixart_sites
    >>> chosen = sites_within(50_000_000, find_architecture("PixArtAlphaImageGenerator"))
    >>> int(chosen.sum()), sorted({component for (_, component), yes in zip(pixart_sites(28), chosen) if yes})
    (42, ['attn1', 'ff'])
    """
    table, (*by_site, of_denoiser) = macs_table(architecture), _sizes(architecture)
    sizes = np.array(by_site)
    ranked = np.argsort(-table.per_site / sizes, kind="stable")
    # All of them kept at once; extrapolation keeps two outputs of each.
    most = sizes[ranked].cumsum() * (2 if forecast else 1)
    # The denoiser's own outputs are kept only for steps in which no site computes.
    most[-1] += 2 * of_denoiser if forecast else 0
    if most[0] > max_bytes:
        needed = f"the site that saves most needs {most[0]:,} bytes"
        raise EcadError(f"the memory limit of {max_bytes:,} bytes allows no reuse: {needed}")
    chosen = np.zeros(len(sizes), dtype=bool)
    chosen[ranked[most <= max_bytes]] = True
    return chosen


@lru_cache(maxsize=16)
def _sizes(architecture: Architecture) -> tuple[int, ...]:
    """Bytes of the output of each site and, last, of the denoiser."""
    if architecture.measured is not None:
        return tuple(2 * numbers for numbers in architecture.measured["kept_numbers"])
    inputs = forward_inputs(architecture, architecture.height, architecture.width, architecture.text_tokens)
    transformer = meta_denoiser(architecture)
    sizes = output_sizes(transformer, discover(transformer), (), inputs)
    return tuple((sizes // 2).tolist())  # counted in the 32-bit numbers of the meta device
