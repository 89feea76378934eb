"""The key of a schedule's images: schedules with one key make the same images.

Search, generation and resuming all compare schedules by it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import numpy as np

from ecad.schedules import CacheSchedule
from ecad.schedules import json_values as plain
from ecad.schedules.plan import executed
from ecad.sites.readers import readers

# Bytes at the end of a `plan_key` that stand for the sites and the custom computation.
_REST = 16


def plan_key(schedule: CacheSchedule) -> bytes:
    """Return what tells a schedule's images from those of another schedule of the same model.

    Search, generation and resuming all compare schedules by it. It covers the plan, the order of the sites, whether
    and by what the schedule forecasts, and its custom computation; not its config, name, metrics or attributes.

    >>> from ecad.schedules import heuristics, pixart_sites
    >>> repeats = heuristics.every_n(pixart_sites(1), 4, 2)
    >>> plan_key(repeats) == plan_key(repeats.replace(name="another"))
    True
    >>> plan_key(repeats) == plan_key(repeats.replace(forecast=True))
    False
    """
    plan = executed(schedule.recompute, readers(schedule.sites))
    forecast = b""
    products, weights = schedule.output_products, schedule.output_weights
    if weights is not None:
        # Image-to-image begins in a later row, where products stand in for weights.
        beside = b"" if products is None else products.tobytes()
        forecast = hashlib.sha256(repr(weights).encode() + beside).digest()
    elif schedule.forecast and not plan.all():
        forecast = b"\x01" if products is None else hashlib.sha256(products.tobytes()).digest()
    custom = sorted((key, plain.thaw(entry)) for key, entry in _custom(schedule).items())
    rest = hashlib.sha256(json.dumps([schedule.sites, custom], sort_keys=True).encode()).digest()[:_REST]
    return schedule.num_steps.to_bytes(4, "big") + np.packbits(plan).tobytes() + forecast + rest


def key_without_sites(key: bytes) -> bytes:
    """Return a `plan_key` as older studies keep it: they name the sites in their settings alone."""
    return key[:-_REST]


def is_uncached(schedule: CacheSchedule | None) -> bool:
    """Tell whether a schedule makes the images that its pipeline makes without one."""
    if schedule is None:
        return True
    if schedule.output_weights is not None or _custom(schedule):
        return False
    return bool(executed(schedule.recompute, readers(schedule.sites)).all())


def _custom(schedule: CacheSchedule) -> dict[tuple[int, str, str], Mapping[str, object]]:
    return {key: entry for key, entry in schedule.custom_compute.items() if key[0] < schedule.num_steps}
