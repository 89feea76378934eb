"""The search space: the schedules of one model as tables of bits (genes)."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from ecad.errors import ScheduleError
from ecad.schedules import CacheSchedule
from ecad.schedules.plan import executed, forecast_matters
from ecad.schedules.schedule import Bits
from ecad.sites.readers import readers

# Whether reused outputs are extrapolated. With "either" a candidate's first bit decides: the first step always
# computes, so that bit is free.
Forecast = Literal["never", "always", "either"]


@dataclass(frozen=True, eq=False)
class SearchSpace:
    """All schedules of one model at one number of steps.

    Args:
        template: any schedule of the model; every candidate has its steps, sites and config, and its output products if
            the candidate extrapolates.
        forecast: whether schedules extrapolate: "never", "always" or "either"; with "either", bits whose first row is
            False stand for a schedule that does.
        reusable: bool (sites,), which sites may be reused, for instance those within a memory limit
            (`cost.memory.sites_within`); None allows all.
    """

    template: CacheSchedule
    forecast: Forecast = field(default="never", kw_only=True)
    reusable: np.ndarray | None = field(default=None, kw_only=True)

    @property
    def shape(self) -> tuple[int, int]:
        """Steps and sites."""
        return self.template.num_steps, len(self.template.sites)

    def schedule(self, bits: Bits, name: str) -> CacheSchedule:
        """The schedule that bits, bool (steps, sites), stand for."""
        forecasts = self.forecast == "always" or (self.forecast == "either" and not bits[0, 0])
        return self.template.replace(
            name=name,
            recompute=computing_first_step(bits) if self.forecast == "either" else bits,
            forecast=forecasts,
            output_products=self.template.output_products if forecasts else None,
        )

    def bits(self, schedule: CacheSchedule) -> Bits:
        """The bits, bool (steps, sites), that stand for a schedule.

        Raises:
            ScheduleError: the schedule is for another model or number of steps.
        """
        if schedule.sites != self.template.sites or schedule.num_steps != self.shape[0]:
            raise ScheduleError(
                f"schedule {schedule.name!r} does not fit this search",
                expected=_described(self.template),
                found=_described(schedule),
            )
        bits: Bits = schedule.recompute.copy()
        if self.forecast == "either":
            bits[0] = not schedule.forecast
        return bits

    def plans(self, bits: Bits) -> Bits:
        """The canonical bits of each schedule: the calls that actually compute. Equal plans make equal images.

        Args:
            bits: bool (n, steps, sites).

        Returns:
            a new bool array of that shape. Its first row is all True, or all False for a schedule of forecast "either"
            that extrapolates, if that changes its images.
        """
        plans = executed(bits if self.reusable is None else bits | ~self.reusable, self._readers)
        if self.forecast == "either":
            plans[:, 0] = bits[:, 0, :1] | ~forecast_matters(plans, self._readers)[:, None]
        return plans

    @cached_property
    def _readers(self) -> np.ndarray:
        return readers(self.template.sites)


def computing_first_step(bits: Bits) -> Bits:
    """A copy of schedules' bits, bool (..., steps, sites), with the first step computed."""
    bits = bits.copy()
    bits[..., 0, :] = True
    return bits


def unpack(packed: bytes, shape: tuple[int, ...]) -> Bits:
    """Undo `numpy.packbits(bits).tobytes()`.

    Args:
        packed: eight bits per byte.
        shape: of the bits.

    Raises:
        ValueError: the number of bytes does not fit the shape.

    >>> unpack(np.packbits(np.eye(3, dtype=bool)).tobytes(), (3, 3)).sum()
    np.int64(3)
    """
    size = int(np.prod(shape))
    if len(packed) != -(-size // 8):
        raise ValueError(f"expected {size} bits, found {8 * len(packed)}")
    return np.unpackbits(np.frombuffer(packed, np.uint8), count=size).astype(bool).reshape(shape)


def _described(schedule: CacheSchedule) -> str:
    return f"{schedule.num_steps} steps of {len(schedule.sites)} sites ({', '.join(schedule.components)})"
