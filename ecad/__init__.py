"""Cache schedules for diffusion transformers: run them, price them, evolve them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ecad._version import __version__

if TYPE_CHECKING:
    from ecad.calibration.calibrate import calibrate
    from ecad.cost.macs import count_macs
    from ecad.errors import EcadError, EcadWarning, ScheduleError
    from ecad.genetic.search import search
    from ecad.image_generators.registry import get_image_generator
    from ecad.runtime.cache import cached, disable_cache, enable_cache
    from ecad.schedules import CacheSchedule
    from ecad.schedules.front import Front


__all__ = [
    "CacheSchedule",
    "EcadError",
    "EcadWarning",
    "Front",
    "ScheduleError",
    "__version__",
    "cached",
    "calibrate",
    "count_macs",
    "disable_cache",
    "enable_cache",
    "get_image_generator",
    "search",
]

# Imported on first use: `import ecad` must not wait for torch and diffusers.
_HOMES = {
    "CacheSchedule": "ecad.schedules",
    "EcadError": "ecad.errors",
    "EcadWarning": "ecad.errors",
    "Front": "ecad.schedules.front",
    "ScheduleError": "ecad.errors",
    "cached": "ecad.runtime.cache",
    "calibrate": "ecad.calibration.calibrate",
    "count_macs": "ecad.cost.macs",
    "disable_cache": "ecad.runtime.cache",
    "enable_cache": "ecad.runtime.cache",
    "get_image_generator": "ecad.image_generators.registry",
    "search": "ecad.genetic.search",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
