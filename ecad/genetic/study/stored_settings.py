"""The settings of a study as its file holds them: what readers rely on is checked once, here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, JsonValue, PositiveInt, ValidationError

from ecad.genetic.problem import Unit


def _printable(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError("expected one line of text")
    return text


# Names that reports show.
Line = Annotated[str, AfterValidator(_printable)]
# What SQLite and NumPy hold. Where everything can be reused, the cheapest schedule may cost nothing.
Cost = Annotated[int, Field(gt=0, lt=2**63)]
Cheapest = Annotated[int, Field(ge=0, lt=2**63)]


class _Evaluator(BaseModel):
    """What the scores depend on; a custom evaluator may name anything."""

    model_config = ConfigDict(extra="allow", strict=True)

    generator: Line = "a custom model"
    parts: dict[str, str] = {}  # `versions.PARTS`


class _Settings(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    mode: Literal["paper", "fast"]
    population_size: PositiveInt
    seed: int
    max_cost: FiniteFloat | None = None
    min_quality: FiniteFloat | None = None
    unit: Unit = "MACs"
    forecast: str = "never"
    steps: PositiveInt
    sites: list[tuple[str, str]]
    config: dict[str, JsonValue]
    uncached_cost: Cost
    cheapest_cost: Cheapest
    scorer: Line
    prompts: Annotated[list[tuple[str, str]], Field(min_length=1)]
    seeds: Annotated[list[int], Field(min_length=1)]
    batch_size: PositiveInt
    evaluator: _Evaluator
    ingredients: dict[str, JsonValue] = {}


def check_settings(settings: Mapping[str, object]) -> None:
    """Check the settings of a study.

    Args:
        settings: setting -> JSON value.

    Raises:
        ValueError: one is missing or malformed; the message names it.
    """
    json.dumps(settings, ensure_ascii=False).encode()  # half a surrogate pair is an error here
    try:
        _Settings.model_validate_json(json.dumps(settings, allow_nan=False))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise ValueError(f"settings: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
