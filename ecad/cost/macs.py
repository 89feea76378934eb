"""The cost of a schedule in multiply-accumulates (MACs): the dot product of its bits and an additive cost table.

There are two accountings:

- `full` counts what runs: linear and convolution layers and attention products, without outputs that nothing reads, at
  the resolution and text length of the generator.
- `linear` reproduces the paper's published counts exactly: linear and convolution layers only, with outputs that
  nothing reads.

Both count the denoiser alone (no text encoder, no VAE) for one image, including the guidance pair if there is one. In
the first step every site computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from ecad.cost.architectures import Architecture, find_architecture
from ecad.cost.table import CostTable
from ecad.errors import EcadError, ScheduleError
from ecad.schedules import CacheSchedule, Sites, tgate
from ecad.sites.names import DENOISER_SITES
from ecad.sites.readers import readers

if TYPE_CHECKING:
    from ecad.cost.measure import Measured

Accounting = Literal["full", "linear"]


@lru_cache(maxsize=64)
def macs_table(
    architecture: Architecture, accounting: Accounting = "full", height: int | None = None, width: int | None = None
) -> CostTable:
    """The cost table of an architecture, from one forward on the meta device; cached.

    Args:
        architecture: the denoiser and its sizes.
        accounting: "full" or "linear".
        height, width: size of an image in pixels; None for the architecture's own.

    Raises:
        EcadError: the accounting is unknown, or the denoiser cannot take the size.
    """
    if accounting not in get_args(Accounting):
        raise EcadError(f"accounting {accounting!r} is unknown: expected 'full' or 'linear'")
    from ecad.cost.measure import measure_architecture  # imports torch, which takes seconds

    published = accounting == "linear"
    measured = measure_architecture(
        architecture,
        architecture.height if height is None else height,
        architecture.width if width is None else width,
        (architecture.published_text_tokens if published else None) or architecture.text_tokens,
    )
    runs = (architecture.measured or {}).get("runs")
    if runs is not None:
        return _table_by_row(measured, runs, published)
    macs = measured.layers if published else measured.layers + measured.attention
    per_site = macs[:-1].copy()
    per_site.flags.writeable = False
    return CostTable(measured.sites, int(macs[-1]), per_site, None if published else readers(measured.sites))


def _table_by_row(measured: Measured, runs: Mapping[str, Any], published: bool) -> CostTable:
    """The table of a pipeline whose denoisers do not run in every row (see `Architecture.measured`)."""
    macs = measured.layers if published else measured.layers + measured.attention
    active = np.zeros((runs["rows"], len(measured.sites)), dtype=bool)
    fixed = np.zeros(runs["rows"], dtype=np.int64)
    start = 0
    for one in runs["denoisers"]:
        rows = slice(one["first"], one["last"])
        active[rows, start : start + one["sites"]] = True
        fixed[rows] += one["layers"] + (0 if published else one["attention"])
        start += one["sites"]
    return CostTable(
        measured.sites, 0, macs[:-1], None if published else readers(measured.sites), active=active, fixed_by_row=fixed
    )


def count_macs(
    schedule: CacheSchedule,
    image_generator: str | Architecture = "PixArtAlphaImageGenerator",
    accounting: Accounting = "full",
    height: int | None = None,
    width: int | None = None,
) -> int:
    """Count the MACs of one image under a schedule: denoiser only, including the guidance pair. Needs no weights.

    Args:
        schedule: the schedule.
        image_generator: name of a generator, or the Architecture of another model.
        accounting: "full" counts what runs, "linear" what the paper published (its FLUX files count two images).
        height, width: size of the image in pixels. By default, FLUX uses the size in the schedule's config; otherwise,
            and for all other generators, the generator's default is used (PixArt: 256, as in the published counts).

    Raises:
        EcadError: the generator, accounting or size is unknown.
        ScheduleError: the schedule has other sites than the model.

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
    """Like `count_macs`, by step.

    Args:
        schedule, image_generator, accounting, height, width: as for `count_macs`.

    Returns:
        int64 (steps,).
    """
    by_component = count_macs_by_component(schedule, image_generator, accounting, height, width)
    return np.asarray(sum(by_component.values()))


def count_macs_by_component(
    schedule: CacheSchedule,
    image_generator: str | Architecture = "PixArtAlphaImageGenerator",
    accounting: Accounting = "full",
    height: int | None = None,
    width: int | None = None,
) -> dict[str, np.ndarray]:
    """Like `count_macs`, by component and step.

    The config of a published TGATE file names a pipeline that drops guidance at a gate step. From there on, half of the
    guidance pair is counted.

    Args:
        schedule, image_generator, accounting, height, width: as for `count_macs`.

    Returns:
        component -> int64 (steps,), and `OUTSIDE` for everything that always runs.
    """
    architecture, height, width = _resolve(schedule, image_generator, height, width)
    table = _table_for(schedule, architecture, macs_table(architecture, accounting, height, width))
    bits = schedule.recompute[:, _columns(schedule, table.sites, architecture.image_generator)]
    found = table.price_components(bits, schedule.forecast)
    gate = tgate.pipeline_gate(schedule.config) if architecture.guidance_pair else None
    if gate is not None:
        for macs in found.values():
            macs[gate:] //= 2
    return found


def uncached_macs(
    schedule: CacheSchedule,
    image_generator: str | Architecture = "PixArtAlphaImageGenerator",
    accounting: Accounting = "full",
    height: int | None = None,
    width: int | None = None,
) -> int:
    """The MACs of one image with the schedule's number of steps if everything is recomputed.

    Args:
        schedule, image_generator, accounting, height, width: as for `count_macs`.
    """
    architecture, height, width = _resolve(schedule, image_generator, height, width)
    table = macs_table(architecture, accounting, height, width)
    return int(table.price(np.ones((schedule.num_steps, len(table.sites)), dtype=bool)))


def _table_for(schedule: CacheSchedule, architecture: Architecture, table: CostTable) -> CostTable:
    """The table with the sites of a schedule of whole steps for any denoiser, if it is one."""
    runs = (architecture.measured or {}).get("runs")
    has_several = runs is not None and len(runs["denoisers"]) > 1
    return table.whole() if schedule.sites == DENOISER_SITES and not has_several else table


def _resolve(
    schedule: CacheSchedule, image_generator: str | Architecture, height: int | None, width: int | None
) -> tuple[Architecture, int | None, int | None]:
    """The architecture and the image size, from the arguments or else from the schedule."""
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
    """The schedule's column of each of the model's sites."""
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
