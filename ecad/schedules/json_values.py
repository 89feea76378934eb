"""Plain JSON values: checked, with the place of a fault; frozen, so that no schedule changes; thawed, to be written."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ecad.errors import ScheduleError

_DEEPEST = 64


class RepeatedKey(dict[str, Any]):
    """A JSON object in which one key stood twice; kept as such only until its place is known."""

    key: str


def unique_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The `object_pairs_hook` for `json.loads` that notices what a dict would swallow."""
    plain = dict(pairs)
    if len(plain) == len(pairs):
        return plain
    repeated = RepeatedKey(plain)
    repeated.key = Counter(key for key, _ in pairs).most_common(1)[0][0]
    return repeated


def check(value: object, path: tuple[str | int, ...] = ()) -> None:
    """Raise ScheduleError, with its place, for anything that strict JSON cannot say.

    Args:
        value: a parsed JSON value, or one made in Python.
        path: the keys that lead to it.
    """
    if len(path) > _DEEPEST:
        raise fault("nested too deeply", path, expected=f"at most {_DEEPEST} levels")
    if isinstance(value, RepeatedKey):
        raise fault("the key appears twice", (*path, value.key), expected="one value")
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not _is_text(key):
                raise fault("not a key of a JSON object", path, expected="text", found=show(key))
            check(item, (*path, key))
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            check(item, (*path, i))
    elif isinstance(value, float) and not math.isfinite(value):
        raise fault("not a finite number", path, expected="a number that JSON can hold", found=repr(float(value)))
    elif not (value is None or isinstance(value, (int, float)) or _is_text(value)):
        expected = "an object, list, text, number, true, false or null"
        raise fault("not a JSON value", path, expected=expected, found=type(value).__name__)


def _is_text(value: object) -> bool:
    """Lone surrogates, which JSON can escape but UTF-8 cannot write, are not text."""
    return isinstance(value, str) and (value.isascii() or not any("\ud800" <= char <= "\udfff" for char in value))


def fault(
    problem: str, path: tuple[str | int, ...], expected: str | None = None, found: str | None = None
) -> ScheduleError:
    """A ScheduleError for the place that a path of keys leads to.

    >>> print(fault("missing", ("cache_schedule", "schedule", "003", "5"), expected="attn1, attn2, ff"))
    step 003, block 5: missing: expected attn1, attn2, ff
    >>> print(fault("missing", ("config", "height")))
    config.height: missing
    """
    place: dict[str, str] = {}
    if path[:2] == ("cache_schedule", "schedule"):
        place = dict(zip(("step", "block", "component"), map(str, path[2:5]), strict=False))
    inner = ".".join(map(str, path[5:] if place else path))
    problem = f"{inner}: {problem}" if inner else problem
    return ScheduleError(problem, **place, expected=expected, found=found)


def show(value: object) -> str:
    """A found value as it would stand in the file."""
    return json.dumps(value, default=repr)


def frozen(value: Any, path: tuple[str, ...]) -> Any:
    """A read-only copy of a JSON object; raises ScheduleError, with its place, if it is none."""
    if not isinstance(value, Mapping):
        raise fault("not an object", path, expected="a JSON object", found=show(value))
    check(value, path)
    return freeze(value)


def freeze(value: Any) -> Any:
    """A read-only copy of a JSON value."""
    if isinstance(value, Mapping):
        return MappingProxyType({key: freeze(item) for key, item in value.items()})
    if isinstance(value, (list, tuple)):
        return tuple(map(freeze, value))
    return value


def thaw(value: Any) -> Any:
    """The inverse of `freeze`: dicts and lists that `json` can write.

    >>> thaw(freeze({"latencies": [1.0, 2.0]}))
    {'latencies': [1.0, 2.0]}
    """
    if isinstance(value, Mapping):
        return {key: thaw(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return list(map(thaw, value))
    return value
