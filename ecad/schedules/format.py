"""The published JSON format of a cache schedule: read strictly, and written back as it was read.

The format is that of "Evolutionary Caching to Accelerate Your Off-the-Shelf Diffusion Model" (arXiv 2506.15682).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from ecad.errors import ScheduleError
from ecad.schedules import json_values as plain
from ecad.schedules.output_products import read_products, written_products
from ecad.sites.names import CUSTOM_PREFIX, by_block, in_gene_order, is_numbered, is_single, numbered_blocks

if TYPE_CHECKING:
    from ecad.schedules.schedule import CacheSchedule

T = TypeVar("T", bound=Hashable)

Block = dict[str, JsonValue]
Step = dict[str, Block]
Object = Annotated[dict[str, JsonValue], Field(default_factory=dict)]
# Far above any model, and low enough to refuse a nonsense number before anything is built from it.
Count = Annotated[int, Field(ge=0, le=99_999)]

_EMPTY_TABLE = dict.fromkeys(("num_blocks", "num_inference_steps", "name", "attributes", "schedule"))
_EMPTY_DOCUMENT = dict.fromkeys(("cache_schedule", "config", "metrics"))


class _Strict(BaseModel):
    # Unknown keys are kept: a newer version or another tool wrote them for a reason.
    model_config = ConfigDict(strict=True, extra="allow")


class _CacheSchedule(_Strict):
    num_blocks: Count
    num_single_blocks: Count = 0
    num_inference_steps: Annotated[Count, Field(ge=1)]
    name: str
    forecast: bool = False
    output_products: list[list[float]] | None = None
    output_weights: list[list[float]] | None = None
    attributes: Object
    schedule: dict[str, dict[str, Block]]


class _Document(_Strict):
    cache_schedule: _CacheSchedule
    config: Object
    metrics: Object


class _CustomCompute(_Strict):
    name: str
    kwargs: dict[str, JsonValue]


def parse(text: str) -> object:
    """Parse the text of a schedule file. Its content is checked by `read`.

    Raises:
        ScheduleError: the text is not JSON.
    """
    if not text.strip():
        raise ScheduleError("the file is empty", expected="a cache schedule as JSON")
    try:
        return json.loads(text, object_pairs_hook=plain.unique_object)
    except json.JSONDecodeError as error:
        where = f"{error.msg} at line {error.lineno}, column {error.colno}"
        raise ScheduleError("not JSON", expected="a cache schedule as JSON", found=where) from None
    except (ValueError, RecursionError) as error:
        raise ScheduleError("not readable as JSON", found=str(error)) from None


def read(document: object) -> dict[str, Any]:
    """Read the fields of a CacheSchedule from a parsed schedule file.

    Args:
        document: the file's JSON value.

    Returns:
        field -> value.

    Raises:
        ScheduleError: a part is missing, unexpected or of the wrong type.
    """
    plain.check(document)
    if isinstance(document, dict):
        _refuse_dit_schedule(document)
    try:
        model = _Document.model_validate(document)
    except ValidationError as error:
        raise _fault(error, ()) from None
    table = model.cache_schedule
    steps = _ordered_steps(table)
    layout = _expected_blocks(table, steps)
    for key, step in steps.items():
        _check_step(key, step, layout)
    sites = tuple((block, component) for block, components in layout.items() for component in components)
    bits = np.array([[step[block][component] for block, component in sites] for step in steps.values()], dtype=bool)
    return {
        "recompute": bits[: table.num_inference_steps],
        "spare": bits[table.num_inference_steps :],
        "sites": sites,
        "name": table.name,
        "forecast": table.forecast,
        "output_products": read_products(table.output_products, table.num_inference_steps),
        "output_weights": table.output_weights,
        "config": model.config,
        "metrics": model.metrics,
        "attributes": table.attributes,
        "custom_compute": {
            (i, block, key): value
            for i, step in enumerate(steps.values())
            for block, cells in step.items()
            for key, value in cells.items()
            if key.startswith(CUSTOM_PREFIX)
        },
        "skeleton": _skeleton(document, model),
    }


def check_custom_compute(value: object, step: str, block: str, key: str) -> None:
    """Check that a custom_compute_* entry has the form {name, kwargs}.

    Args:
        value: the entry.
        step, block, key: its location.

    Raises:
        ScheduleError: the entry has another form.
    """
    path = ("cache_schedule", "schedule", step, block, key)
    try:
        _CustomCompute.model_validate(value)
    except ValidationError as error:
        raise _fault(error, path) from None


def write(schedule: CacheSchedule) -> dict[str, Any]:
    """The JSON value of a schedule's file.

    Known keys stand where the file that the schedule was read from had them. Unknown keys are kept.
    """
    blocks = [block for block, _ in by_block(schedule.sites)]
    num_single = sum(map(is_single, blocks))
    products = schedule.output_products
    table = {
        "num_blocks": len(blocks) - num_single,
        "num_single_blocks": num_single,
        "num_inference_steps": schedule.num_steps,
        "name": schedule.name,
        "forecast": schedule.forecast,
        "output_products": None if products is None else written_products(products),
        "output_weights": plain.thaw(schedule.output_weights),
        "attributes": plain.thaw(schedule.attributes),
        "schedule": _steps(schedule),
    }
    values = {
        "cache_schedule": _fill(schedule.skeleton.get("cache_schedule") or _EMPTY_TABLE, table),
        "config": plain.thaw(schedule.config),
        "metrics": plain.thaw(schedule.metrics),
    }
    return _fill(schedule.skeleton or _EMPTY_DOCUMENT, values)


def _fill(skeleton: Mapping[str, object], values: dict[str, object]) -> dict[str, object]:
    """Put the values in the skeleton's places; values without a place follow, unless they are empty."""
    placed = {key: values[key] if key in values else plain.thaw(other) for key, other in skeleton.items()}
    return placed | {key: value for key, value in values.items() if key not in placed and value}


def _skeleton(document: Any, model: _Document) -> dict[str, Any]:
    """The document without the known values: its key order and its unknown keys."""
    table = document["cache_schedule"]
    skeleton = {key: None if key in type(model).model_fields else value for key, value in document.items()}
    known = type(model.cache_schedule).model_fields
    skeleton["cache_schedule"] = {key: None if key in known else value for key, value in table.items()}
    return skeleton


def _steps(schedule: CacheSchedule) -> dict[str, Step]:
    custom: dict[tuple[int, str], Block] = {}
    for (i, block, key), value in schedule.custom_compute.items():
        custom.setdefault((i, block), {})[key] = plain.thaw(value)
    blocks = by_block(schedule.sites)
    steps: dict[str, Step] = {}
    for i, row in enumerate(chain(schedule.recompute.tolist(), schedule.spare.tolist())):
        bits = iter(row)
        steps[f"{i:03d}"] = {
            block: {component: next(bits) for component in components} | custom.get((i, block), {})
            for block, components in blocks
        }
    return steps


def _refuse_dit_schedule(document: Mapping[str, object]) -> None:
    inner = document.get("cache_schedule")
    if "dit_schedule" in document or (isinstance(inner, dict) and "dit_schedule" in inner):
        raise ScheduleError(
            "the file holds a dit_schedule (a graph of blocks), which ecad cannot run",
            expected="a cache_schedule",
            found="a dit_schedule",
        )


def _fault(error: ValidationError, path: tuple[str | int, ...]) -> ScheduleError:
    first = error.errors(include_url=False, include_context=False)[0]
    place = (*path, *first["loc"])
    if first["type"] == "missing":
        return plain.fault("missing", place, expected="a value", found="nothing")
    is_object = first["type"] in ("dict_type", "model_type")
    expected = "an object" if is_object else first["msg"].removeprefix("Input should be ")
    return plain.fault("wrong type of value", place, expected=expected, found=plain.show(first["input"]))


def _ordered_steps(table: _CacheSchedule) -> dict[str, Step]:
    """Sort the steps. Rows beyond num_inference_steps are legal: published files have some."""
    found = _number(len(table.schedule), "step")
    keys = [f"{i:03d}" for i in range(max(table.num_inference_steps, len(table.schedule)))]
    for key in keys[: table.num_inference_steps]:
        if key not in table.schedule:
            expected = f"{_number(table.num_inference_steps, 'step')} (num_inference_steps) from {keys[0]}"
            raise ScheduleError("the step is missing", step=key, expected=expected, found=found)
    for key in table.schedule:
        if key not in keys:
            raise ScheduleError("not a step's key", step=key, expected=f"{keys[0]} to {keys[-1]}", found=found)
    return {key: table.schedule[key] for key in keys}


def _expected_blocks(table: _CacheSchedule, steps: Mapping[str, Step]) -> dict[str, list[str]]:
    """Each block's components in gene order, as most steps have them, so that errors name the step that differs."""
    shapes = [{block: _bits(cells) for block, cells in step.items()} for step in steps.values()]
    usual = dict(_most_common(tuple(shape.items()) for shape in shapes))
    if not any(map(is_numbered, usual)):
        if len(usual) != table.num_blocks + table.num_single_blocks:
            expected = f"{_number(table.num_blocks + table.num_single_blocks, 'block')} (num_blocks)"
            raise ScheduleError("wrong number of blocks", expected=expected, found=_number(len(usual), "block"))
        return {block: list(components) for block, components in usual.items()}
    expected_blocks = {}
    for single, count in ((False, table.num_blocks), (True, table.num_single_blocks)):
        cells = [components for shape in shapes for block, components in shape.items() if is_single(block) is single]
        components = in_gene_order(_most_common(cells)) if cells else []
        keys = numbered_blocks(0, count) if single else numbered_blocks(count)
        expected_blocks.update(dict.fromkeys(keys, components))
    return expected_blocks


def _bits(cells: Block) -> tuple[str, ...]:
    return tuple(key for key in cells if not key.startswith(CUSTOM_PREFIX))


def _most_common(shapes: Iterable[T]) -> T:
    """The most frequent shape; the first of several."""
    return Counter(shapes).most_common(1)[0][0]


def _check_step(step: str, blocks: Step, expected: Mapping[str, list[str]]) -> None:
    for block in chain(expected, blocks):
        if block not in blocks or block not in expected:
            problem = "the block is missing" if block in expected else "not a block of this schedule"
            names = list(expected)
            wanted = f"{_number(len(names), 'block')} ({names[0]} to {names[-1]})" if names else "no blocks"
            raise ScheduleError(problem, step=step, block=block, expected=wanted, found=_number(len(blocks), "block"))
    for block, components in expected.items():
        _check_block(step, block, blocks[block], components)


def _check_block(step: str, block: str, cells: Block, expected: list[str]) -> None:
    for component in chain(expected, _bits(cells)):
        if component not in cells or component not in expected:
            problem = "the component is missing" if component in expected else "not a component of this block"
            raise ScheduleError(
                problem,
                step=step,
                block=block,
                component=component,
                expected=", ".join(expected) or "no components",
                found=", ".join(_bits(cells)) or "none",
            )
    for component in expected:
        if not isinstance(cells[component], bool):
            raise ScheduleError(
                "not a bit",
                step=step,
                block=block,
                component=component,
                expected="true (recompute) or false (reuse)",
                found=plain.show(cells[component]),
            )


def _number(count: int, unit: str) -> str:
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
