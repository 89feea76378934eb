"""Restores a pipeline after a rival, whatever it changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def put_back(pipe: Any) -> Iterator[None]:
    """Restore a pipeline's parts after the block: classes, forwards, states, order of modules."""
    parts = [pipe, pipe.scheduler, *pipe.transformer.modules()]
    before = [(part, type(part), dict(vars(part)), dict(vars(part).get("_modules", {}))) for part in parts]
    try:
        yield
    finally:
        for part, kind, held, children in before:
            part.__class__ = kind
            vars(part).clear()
            vars(part).update(held)
            if children:
                part._modules.clear()
                part._modules.update(children)
