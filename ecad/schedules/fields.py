"""Checks the fields of a schedule and makes read-only copies of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ecad.errors import ScheduleError
from ecad.schedules import json_values as plain
from ecad.schedules.format import check_custom_compute
from ecad.schedules.output_products import checked_products
from ecad.schedules.output_weights import checked_weights
from ecad.sites.names import CUSTOM_PREFIX, check_sites

if TYPE_CHECKING:
    from ecad.schedules.schedule import CacheSchedule

Bits = npt.NDArray[np.bool_]

_OBJECTS = ("config", "metrics", "attributes", "skeleton")


def checked_fields(schedule: CacheSchedule) -> dict[str, object]:
    """Check the fields of a schedule as its caller gave them.

    Returns:
        field -> a read-only copy of its value.

    Raises:
        ScheduleError: a shape, type or name is wrong, or two fields disagree.
    """
    sites = check_sites(schedule.sites)
    recompute = _bit_table(schedule.recompute, len(sites))
    if not len(recompute):
        raise ScheduleError("no steps", expected="at least one step", found="none")
    spare = _bit_table(schedule.spare, len(sites)) if len(schedule.spare) else recompute[:0]
    if not isinstance(schedule.name, str) or not schedule.name.isprintable():
        raise ScheduleError("not a name", expected="one line of text", found=plain.show(schedule.name))
    if not isinstance(schedule.forecast, bool):
        raise ScheduleError("forecast is not a bool", expected="true or false", found=plain.show(schedule.forecast))
    _check_custom_compute(schedule.custom_compute, len(recompute) + len(spare), {block for block, _ in sites})
    return {
        "recompute": recompute,
        "sites": sites,
        "spare": spare,
        "custom_compute": plain.freeze(schedule.custom_compute),
        "output_products": checked_products(schedule.output_products, len(recompute)),
        "output_weights": checked_weights(schedule.output_weights, recompute, schedule.forecast),
        **{key: plain.frozen(getattr(schedule, key), (key,)) for key in _OBJECTS},
    }


def check_number(name: str, value: object, least: int, most: int | None = None) -> None:
    """Check that an argument is a whole number in a range.

    Raises:
        ScheduleError: it is not; the message has the argument's name.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        expected = f"a whole number from {least}" + ("" if most is None else f" to {most}")
        raise ScheduleError(f"{name} is out of range", expected=expected, found=repr(value))


def _bit_table(values: npt.ArrayLike, num_sites: int) -> Bits:
    """A read-only copy, bool (steps, sites)."""
    expected = f"bool (steps, {num_sites} sites)"
    try:
        table = np.array(values)
    except ValueError:
        raise ScheduleError("not a table of bits", expected=expected, found="rows of different lengths") from None
    if table.dtype != np.bool_ or table.ndim != 2 or table.shape[1] != num_sites:
        raise ScheduleError("not a table of bits", expected=expected, found=f"{table.dtype} {table.shape}")
    table.setflags(write=False)
    return table


def _check_custom_compute(entries: Mapping[tuple[int, str, str], object], num_rows: int, blocks: set[str]) -> None:
    for (step, block, key), entry in entries.items():
        if not 0 <= step < num_rows or block not in blocks or not key.startswith(CUSTOM_PREFIX):
            expected = f"{CUSTOM_PREFIX}* of one of {num_rows} steps and {len(blocks)} blocks"
            raise ScheduleError(
                "custom_compute: no such place", expected=expected, found=f"step {step}, block {block}, {key}"
            )
        check_custom_compute(plain.thaw(entry), f"{step:03d}", block, key)
