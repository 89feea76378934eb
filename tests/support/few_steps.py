"""The built-in models in five denoising steps, where a test is about something else than their images."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ecad import builtin
from ecad.cost import architectures

STEPS = 5


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> int:
    """The built-in models make images in this number of steps: a search has fewer probes, and images take less time."""
    set_steps(monkeypatch, STEPS)
    return STEPS


def set_steps(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Give the built-in models another default number of steps."""
    short = tuple(
        replace(known, steps=steps) if known.image_generator in builtin.GENERATORS else known
        for known in architectures.known_architectures()
    )
    monkeypatch.setattr(architectures, "known_architectures", lambda: short)
