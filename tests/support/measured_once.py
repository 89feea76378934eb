"""Pipelines that a file describes are measured once, where a test is about something else than what is measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_map_only

from ecad.image_generators import unregistered
from ecad.runtime.output_sizes import floating_dtype

_FOUND: dict[str, Any] = {}


@pytest.fixture
def measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """MACs and sizes of a denoiser are those of its class, configuration, dtype and inputs, however often it is loaded.

    Each command of a test loads its pipeline anew, and counting takes most of that time.
    """
    measure = unregistered._measure

    def once(name: str, part: str, denoiser: Any, arguments: Mapping[str, object], macs: int | None) -> Any:
        shapes = tree_map_only(torch.Tensor, lambda tensor: (tuple(tensor.shape), tensor.dtype), dict(arguments))
        key = repr((type(denoiser), denoiser.config, floating_dtype(denoiser), shapes, macs))
        if key not in _FOUND:
            _FOUND[key] = measure(name, part, denoiser, arguments, macs)
        return _FOUND[key]

    monkeypatch.setattr(unregistered, "_measure", once)
