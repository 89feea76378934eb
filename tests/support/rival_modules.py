"""The modules of `benchmarks/rivals`, which need the releases that they compare with."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import pytest

MODULES = (
    "setting",
    "schedules",
    "in_diffusers",
    "in_cache_dit",
    "smooth_cache",
    "dp_cache",
    "tea_cache",
    "easy_cache",
    "spectrum",
    "samplers",
    "measure",
    "figures",
    "markdown",
)


@pytest.fixture(scope="session")
def rivals() -> SimpleNamespace:
    """Module of `benchmarks/rivals` -> the module; tests skip if one cannot be imported."""
    try:
        return SimpleNamespace(**{name: importlib.import_module(f"rivals.{name}") for name in MODULES})
    except ImportError as error:
        pytest.skip(f"the installed diffusers lacks a rival: {error}")
