"""Where two sets of settings differ."""

from __future__ import annotations

import json


def first_difference(expected: object, found: object, name: str = "") -> str | None:
    """The first difference of two JSON values, such as "population_size: expected 72, found 24"; None if equal."""
    if isinstance(expected, dict) and isinstance(found, dict):
        pairs = [(f"{name}.{key}", expected.get(key), found.get(key)) for key in {**expected, **found}]
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = [(f"{name}[{i}]", *values) for i, values in enumerate(zip(expected, found, strict=True))]
    elif expected == found:
        return None
    else:
        return f"{name.removeprefix('.')}: expected {_shown(expected)}, found {_shown(found)}"
    differences = (first_difference(old, new, path) for path, old, new in pairs)
    return next(filter(None, differences), None)


def _shown(value: object) -> str:
    text = json.dumps(value)
    if len(text) <= 100:
        return "nothing" if value is None else text
    return f"{len(value)} entries" if isinstance(value, dict | list) else f"{text[:97]}..."
