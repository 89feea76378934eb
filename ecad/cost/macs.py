"""The price of a schedule in multiply-accumulates (MACs): an additive table, and every schedule a dot product.

Two accountings:

- `full`: what really runs. Linear and convolution layers and attention products, without dead work, at the resolution
  and text length of the generator.
- `linear`: the paper's published counts, to the integer. Linear and convolution layers only, dead work included.

Both count the denoiser alone (no text encoder, no VAE) for one image, the guidance pair included where there is one.
The first visit of a site computes whatever its bit says.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Literal, get_args

import numpy as np

from ecad.cost.architectures import Architecture, find_architecture
from ecad.cost.table import CostTable
from ecad.errors import EcadError, ScheduleError
from ecad.schedules import CacheSchedule, Sites
from ecad.sites.readers import readers

Accounting = Literal["full", "linear"]


@lru_cache(maxsize=64)
def macs_table(
    architecture: Architecture, accounting: Accounting = "full", height: int | None = None, width: int | None = None
) -> CostTable:
    """The table of one architecture, from one forward on the meta device; remembered.

    Args:
        architecture: the denoiser and its sizes.
        accounting: "full" or "linear".
        height, width: pixels of an image; the architecture's own where None.

    Raises:
        EcadError: another accounting, or a size that the denoiser cannot take.
    """
    if accounting not in get_args(Accounting):
        raise EcadError(f"accounting {accounting!r} is unknown: expected 'full' or 'linear'")
    from ecad.cost.measure import measure_architecture  # imports torch, which a wrong argument need not wait for

    published = accounting == "linear"
    measured = measure_architecture(
        architecture,
        architecture.height if height is None else height,
        architecture.width if width is None else width,
        (architecture.published_text_tokens if published else None) or architecture.text_tokens,
    )
    macs = measured.layers if published else measured.layers + measured.attention
    per_site = macs[:-1].copy()
    per_site.flags.writeable = False
    return CostTable(measured.sites, int(macs[-1]), per_site, None if published else readers(measured.sites))


def count_macs(
    schedule: CacheSchedule,
    image_generator: str | Architecture = "PixArtAlphaImageGenerator",
    accounting: Accounting = "full",
    height: int | None = None,
    width: int | None = None,
) -> int:
    """MACs of one image made under a schedule: denoiser only, guidance pair included; no weights, no network.

    Args:
        schedule: what recomputes when.
        image_generator: a generator's name, or the Architecture of any other model.
        accounting: "full" counts what runs, "linear" what the paper published (its FLUX files count two images).
        height, width: pixels. Where None: FLUX takes those in the schedule's config; otherwise, and for every other
            generator, the generator's own default (PixArt: 256 whatever the config says, as published).

    Raises:
        EcadError: an unknown generator, accounting or size.
        ScheduleError: the schedule has other sites.

    >>> from ecad.schedules import CacheSchedule, pixart_sites
    >>> every_bit = CacheSchedule(np.ones((20, 84), dtype=bool), pixart_sites(28))
    >>> count_macs(every_bit, accounting="linear")
    5713796136960
    """
    return int(count_macs_by_step(schedule, image_generator, accounting, height, width).sum())


def count_macs_by_step(
    schedule: CacheSchedule,
    image_generator: str | Architecture = "PixArtAlphaImageGenerator",
    accounting: Accounting = "full",
    height: int | None = None,
    width: int | None = None,
) -> np.ndarray:
    """What `count_macs` adds up, step by step: int64 (steps,)."""
    by_component = count_macs_by_component(schedule, image_generator, accounting, height, width)
    return np.asarray(sum(by_component.values()))


def count_macs_by_component(
    schedule: CacheSchedule,
    image_generator: str | Architecture = "PixArtAlphaImageGenerator",
    accounting: Accounting = "full",
    height: int | None = None,
    width: int | None = None,
) -> dict[str, np.ndarray]:
    """What `count_macs` adds up, by component and, as `OUTSIDE`, for all that always runs: int64 (steps,) each.

    A published TGATE file's config names a pipeline that drops guidance at a gate: from there on half the pair counts.
    """
    architecture, height, width = _resolve(schedule, image_generator, height, width)
    table = macs_table(architecture, accounting, height, width)
    bits = schedule.recompute[:, _columns(schedule, table.sites, architecture.image_generator)]
    found = table.price_components(bits, schedule.forecast)
    if architecture.guidance_pair:
        for macs in found.values():
            macs[_gate_step(schedule) :] //= 2
    return found


def uncached_macs(
    schedule: CacheSchedule,
    image_generator: str | Architecture = "PixArtAlphaImageGenerator",
    accounting: Accounting = "full",
    height: int | None = None,
    width: int | None = None,
) -> int:
    """What `count_macs` would give if everything recomputed in every step of the schedule."""
    architecture, height, width = _resolve(schedule, image_generator, height, width)
    table = macs_table(architecture, accounting, height, width)
    return int(table.price(np.ones((schedule.num_steps, len(table.sites)), dtype=bool)))


def _resolve(
    schedule: CacheSchedule, image_generator: str | Architecture, height: int | None, width: int | None
) -> tuple[Architecture, int | None, int | None]:
    """The architecture and the image size that the arguments, or else the schedule, ask for."""
    known = image_generator if isinstance(image_generator, Architecture) else find_architecture(image_generator)
    if known.size_from_schedule:
        height = _config_size(schedule, "height") if height is None else height
        width = _config_size(schedule, "width") if width is None else width
    if not isinstance(image_generator, Architecture):
        known = find_architecture(image_generator, height, width)
    return known, height, width


def _config_size(schedule: CacheSchedule, name: str) -> int | None:
    size = schedule.config.get(name)
    if size is not None and (isinstance(size, bool) or not isinstance(size, int)):
        raise ScheduleError(f"config.{name} is not a size", expected="a whole number of pixels", found=repr(size))
    return size


def _columns(schedule: CacheSchedule, sites: Sites, name: str) -> list[int]:
    """Where each of the model's sites stands in the schedule."""
    column = {site: index for index, site in enumerate(schedule.sites)}
    theirs = set(sites)
    if odd := [site for site in sites if site not in column] or [site for site in column if site not in theirs]:
        raise ScheduleError(
            f"schedule {schedule.name!r} does not fit {name}",
            block=odd[0][0],
            component=odd[0][1],
            expected=_summary(sites),
            found=_summary(schedule.sites),
            remedy="name the image generator that the schedule was made for",
        )
    return [column[site] for site in sites]


def _summary(sites: Sites) -> str:
    return f"{len(sites)} sites in {len({block for block, _ in sites})} blocks"


def _gate_step(schedule: CacheSchedule) -> int:
    """First step that runs without guidance: TGATE's gate, or the number of steps.

    TGATE (arXiv 2404.02747) drops the unconditional half from the gate on.
    """
    pipeline = schedule.config.get("pipeline")
    if not isinstance(pipeline, Mapping) or pipeline.get("name") != "tgate":
        return schedule.num_steps
    kwargs = pipeline.get("kwargs")
    gate = kwargs.get("gate_step") if isinstance(kwargs, Mapping) else None
    if isinstance(gate, bool) or not isinstance(gate, int) or gate < 0:
        raise ScheduleError("config.pipeline.kwargs.gate_step is not a step", expected="0 or more", found=repr(gate))
    return gate
