"""The search problem of an image generator: cost in MACs or in time, and a memory limit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ecad.cost.architectures import Architecture
from ecad.cost.macs import macs_table
from ecad.cost.memory import sites_within
from ecad.cost.table import CostTable
from ecad.errors import EcadError
from ecad.genetic.problem import Problem
from ecad.image_generators import ImageGenerator
from ecad.image_generators.latency_table import latency_table
from ecad.prompts import Prompt
from ecad.schedules import CacheSchedule, heuristics
from ecad.utils.device import device_name
from ecad.utils.files import parse_json, write_atomic


def problem_of(generator: ImageGenerator) -> Problem:
    """All schedules of a generator at its number of steps and image size; the cost is the MACs of one image."""
    return problem_for(generator.architecture, generator.rows(), generator.guidance_scale)


def problem_for(architecture: Architecture, rows: int, guidance_scale: float | None) -> Problem:
    """`problem_of` for a generator that is not loaded; `rows` is the number of rows that its sampler makes."""
    table = macs_table(architecture)
    config: dict[str, object] = {"height": architecture.height, "width": architecture.width}
    if guidance_scale is not None:
        config["guidance_scale"] = guidance_scale
    uncached = heuristics.none(table.sites, rows)
    return Problem(CacheSchedule(uncached.recompute, table.sites, "uncached", config=config), table.price)


def latency_problem(generator: ImageGenerator, prompts: Sequence[Prompt], file: Path) -> Problem:
    """`problem_of`, where the cost is the time of one image on the generator's device in nanoseconds.

    Args:
        generator: to be timed.
        prompts: one batch.
        file: of the measured times. If it exists its times are used, so that a resumed search has the same costs.

    Raises:
        EcadError: the file is damaged, or its times are of another device.
    """
    device = device_name(generator.pipe.device)
    if file.exists():
        try:
            known = parse_json(file.read_bytes())
            table, expected = CostTable.from_json(known["table"]), known["device"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EcadError(f"{file}: expected a table of times, found {error}; search in another folder") from error
        if expected != device:
            raise EcadError(f"{file}: its times were measured on another device: expected {expected}, found {device}")
    else:
        table = latency_table(generator, generator.encode([prompt.text for prompt in prompts]))
        # A report shows MACs, too, and does not load a model that is not registered.
        known = {"device": device, "table": table.to_json(), "macs": macs_table(generator.architecture).to_json()}
        write_atomic(file, json.dumps(known) + "\n")
    return replace(problem_of(generator), price=table.price, unit="ns")


def within_memory(problem: Problem, architecture: Architecture, max_cached_bytes: int | None) -> Problem:
    """The problem restricted to schedules that keep at most `max_cached_bytes` per image; raises as `sites_within`."""
    if max_cached_bytes is None:
        return problem
    return replace(problem, reusable=sites_within(max_cached_bytes, architecture, problem.forecast != "never"))
