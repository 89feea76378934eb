"""Converts between a schedule and the table of bits that a search works on."""

from __future__ import annotations

from typing import Literal

from ecad.schedules import CacheSchedule
from ecad.schedules.schedule import Bits

# "either": each candidate says. The first step computes whatever its bits say, so its first bit is free to say it.
Forecast = Literal["never", "always", "either"]


def bits_of(schedule: CacheSchedule, forecast: Forecast) -> Bits:
    """The bits, bool (steps, sites), that stand for a schedule in a problem."""
    bits: Bits = schedule.recompute.copy()
    if forecast == "either":
        bits[0] = not schedule.forecast
    return bits


def schedule_of(bits: Bits, template: CacheSchedule, forecast: Forecast) -> CacheSchedule:
    """The schedule that bits of a problem, bool (steps, sites), stand for; `template` is of the same model."""
    forecasts = forecast == "always" or (forecast == "either" and not bits[0, 0])
    return template.replace(
        recompute=_computing(bits) if forecast == "either" else bits,
        forecast=forecasts,
        output_products=template.output_products if forecasts else None,
    )


def _computing(bits: Bits) -> Bits:
    """A copy of schedules' bits, bool (..., steps, sites), whose first step computes."""
    bits = bits.copy()
    bits[..., 0, :] = True
    return bits
