"""Who calls a denoiser: the functions that are running in this thread, from the denoiser's caller outwards.

A generation is one call of some function (a pipeline's `__call__`, a loop of one's own): it begins in it, and whatever
was kept for it is of no use when that function has returned or raised. Its frame is the evidence for both, and no
pipeline has to say anything.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from types import CodeType, FrameType
from typing import Any

# What stands between a caller and a module's forward, and differs from call to call (compilation, offloading).
_BETWEEN = frozenset(("torch", "accelerate", "ecad", "contextlib"))

Site = tuple[tuple[CodeType, int], ...]


class Scope:
    """One running call of a function; it ends when the function has returned or raised.

    It is the frame's trace function, since that alone dies with a frame and can be reached from it. Python calls it
    under a debugger only; then it passes everything on to the debugger's own.
    """

    def __init__(self, traced: Any) -> None:
        self._traced = traced
        self.at_end: list[Callable[[], None]] = []

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Scope:
        if self._traced is not None:
            self._traced = self._traced(frame, event, arg) or self._traced
        return self

    def __del__(self) -> None:
        for end in self.at_end.copy():
            end()


def running() -> list[weakref.ref[Scope]]:
    """The scopes of all functions that are running in this thread, the innermost first."""
    return [weakref.ref(_scope_of(frame)) for frame in _frames() if not _is_between(frame)]


def innermost(begun: Sequence[weakref.ref[Scope]]) -> Scope | None:
    """The scope of the innermost function that was running before and still is.

    Args:
        begun: what was running, as `running` gave it; empty for the function that calls a module now.
    """
    before = [scope for one in begun if (scope := one()) is not None]
    for frame in _frames():
        if not _is_between(frame) and (not begun or frame.f_trace in before):
            return _scope_of(frame)
    return None


def call_site(scope: Scope) -> Site | None:
    """The places in code from which a module is called, outwards to a scope; None outside of it."""
    places, frame = [], sys._getframe(1)
    while frame is not None:
        if not _is_between(frame):
            places.append((frame.f_code, frame.f_lasti))
            if frame.f_trace is scope:
                return tuple(places)
        frame = frame.f_back  # type: ignore[assignment]
    return None


def calls_method_of(holds: Callable[[object], bool]) -> bool:
    """Whether a method is running whose object fits.

    Local variables that are looked at stay alive as long as their function runs, so this is for exceptions only.

    Args:
        holds: tells whether an object fits.
    """
    return any(not _is_between(frame) and holds(frame.f_locals.get("self")) for frame in _frames())


def _scope_of(frame: FrameType) -> Scope:
    if not isinstance(frame.f_trace, Scope):
        frame.f_trace = Scope(frame.f_trace)
    return frame.f_trace


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _is_between(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] in _BETWEEN
