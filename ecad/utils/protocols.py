"""Pipelines, samplers and calls of diffusers, as far as their types are known."""

from __future__ import annotations

from typing import Any, Protocol

# Arguments of a call that is wrapped and passed on.
Args = tuple[Any, ...]
Kwargs = dict[str, Any]


class Pipeline(Protocol):
    """A diffusers pipeline. Its components are attributes, and their names differ between pipelines."""

    def __call__(self, *args: object, **kwargs: object) -> Any: ...

    def __getattr__(self, name: str) -> Any: ...


class Sampler(Protocol):
    """A scheduler of diffusers."""

    def step(self, *args: object, **kwargs: object) -> Any: ...

    def __getattr__(self, name: str) -> Any: ...
