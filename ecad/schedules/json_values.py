"""Plain JSON values: checks that name the location of a fault, and read-only copies."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ecad.errors import ScheduleError

_MAX_DEPTH = 64


class RepeatedKey(dict[str, object]):
    """A JSON object in which a key occurs twice. It lasts only until `check` reports its location."""

    key: str


def unique_object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An `object_pairs_hook` for `json.loads` that notices repeated keys, which a dict would swallow."""
    plain = dict(pairs)
    if len(plain) == len(pairs):
        return plain
    repeated = RepeatedKey(plain)
    repeated.key = Counter(key for key, _ in pairs).most_common(1)[0][0]
    return repeated


def check(value: object, path: tuple[str | int, ...] = ()) -> None:
    """Check that strict JSON can represent a value.

    Args:
        value: a parsed JSON value, or one made in Python.
        path: the keys that lead to it.

    Raises:
        ScheduleError: it cannot; the message names the location.
    """
    if len(path) > _MAX_DEPTH:
        raise fault("nested too deeply", path, expected=f"at most {_MAX_DEPTH} levels")
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
    """Whether a value is a string that UTF-8 can encode. JSON can escape lone surrogates, but UTF-8 cannot."""
    return isinstance(value, str) and (value.isascii() or not any("\ud800" <= char <= "\udfff" for char in value))


def fault(
    problem: str, path: tuple[str | int, ...], expected: str | None = None, found: str | None = None
) -> ScheduleError:
    """Make a ScheduleError for the location that a path of keys leads to.

    >>> print(fault("missing", ("cache_schedule", "schedule", "003", "5"), expected="attn1, attn2, ff"))
    missing (step 003, block 5): expected attn1, attn2, ff
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
    """A value as it would stand in the file, for messages."""
    return json.dumps(value, default=repr)


def frozen(value: object, path: tuple[str, ...]) -> Mapping[str, Any]:
    """Make a read-only copy of a JSON object.

    Args:
        value: a mapping of JSON values.
        path: the keys that lead to it, for messages.

    Raises:
        ScheduleError: the value is not a JSON object.
    """
    if not isinstance(value, Mapping):
        raise fault("not an object", path, expected="a JSON object", found=show(value))
    check(value, path)
    read_only: Mapping[str, Any] = freeze(value)
    return read_only


def freeze(value: object) -> Any:
    """Make a read-only copy of a JSON value."""
    if isinstance(value, Mapping):
        return MappingProxyType({key: freeze(item) for key, item in value.items()})
    if isinstance(value, (list, tuple)):
        return tuple(map(freeze, value))
    return value


def thaw(value: object) -> Any:
    """The inverse of `freeze`: dicts and lists that `json` can write.

    >>> thaw(freeze({"latencies": [1.0, 2.0]}))
    {'latencies': [1.0, 2.0]}
    """
    if isinstance(value, Mapping):
        return {key: thaw(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return list(map(thaw, value))
    return value
