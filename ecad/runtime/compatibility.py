"""Whether a denoiser and the way it is run are those that a schedule was made for."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from torch import nn

from ecad.errors import EcadWarning, ScheduleError
from ecad.runtime.kept_outputs import tensors_in
from ecad.schedules import CacheSchedule
from ecad.schedules.provenance import made_for
from ecad.schedules.rows import steps_of
from ecad.sites.discovery import Site
from ecad.utils.adapters import active_adapters

# What each difference means for a schedule, as far as is known.
_EFFECT = {
    "variant of the model": "the share of MACs saved stays, the quality was not measured: look at a few images first",
    "number of steps": "more steps keep its gain, fewer than two thirds lose most of it (docs/resampling.md)",
    "sampler": "its quality was not measured there: look at a few images first",
    "resolution": "its quality was not measured there: look at a few images first",
}
# Parts of the names of diffusers' modules whose hooks reuse outputs.
_OTHERS = "_cache", "attention_broadcast"


def layout_of(denoiser: nn.Module, sites: Sequence[Site]) -> str:
    """Hex digits that differ where a denoiser's class or its sites differ."""
    return _digest([type(denoiser).__name__, [[site.block, site.component] for site in sites]])


def configuration_of(denoiser: nn.Module) -> str:
    """Hex digits that differ where a denoiser's configuration or adapters do; where it was loaded from is left out."""
    config = {key: value for key, value in dict(getattr(denoiser, "config", {})).items() if not key.startswith("_")}
    adapters = active_adapters(denoiser)
    return _digest({**config, "adapters": adapters} if adapters else config)


def check_denoiser(schedule: CacheSchedule, denoiser: nn.Module, sites: Sequence[Site]) -> None:
    """Refuse a denoiser of another layout than a schedule was made for; warn of another configuration or of resampling.

    Args:
        schedule: one that does not say where it comes from is for any denoiser that it fits.
        denoiser, sites: that it is to run on.

    Raises:
        ScheduleError: another layout.
    """
    provenance, steps = made_for(schedule.attributes)
    if provenance is None:
        return
    name = schedule.name
    found = layout_of(denoiser, sites)
    if found != provenance.layout:
        raise ScheduleError(
            f"schedule {name!r} was made for a denoiser of another layout",
            expected=f"{provenance.denoiser} {provenance.layout}",
            found=f"{type(denoiser).__name__} {found}",
            remedy="search a schedule for this denoiser, or start one with CacheSchedule.for_model",
        )
    _tell(name, "variant of the model", provenance.configuration, configuration_of(denoiser))
    _tell(name, "number of steps", steps, schedule.num_steps)


def check_run(schedule: CacheSchedule, sampler: object, inputs: Sequence[Any]) -> None:
    """Warn of another sampler or resolution than a schedule was made for.

    Args:
        schedule: whatever runs.
        sampler: the pipeline's scheduler; None if a loop does without.
        inputs: of the denoiser's forward, the latents first.
    """
    provenance, _ = made_for(schedule.attributes)
    if provenance is not None:
        if sampler is not None:
            _tell(schedule.name, "sampler", provenance.sampler, type(sampler).__name__)
        _tell(schedule.name, "resolution", provenance.latents, latent_shape(inputs))


def rows_of_run(pipe: Any, steps: int, has_begun: bool) -> int:
    """The number of rows that a pipeline's scheduler has been set to.

    Args:
        pipe: the pipeline.
        steps: rows of the schedule: what is given where they may be the run's.
        has_begun: whether the pipeline has called its denoiser, and may have told how many rows it runs.
    """
    scheduler = pipe.scheduler
    rows = len(scheduler.timesteps)
    # Some samplers end their timesteps with where the last row arrives.
    is_shorter = rows == steps + 1 and getattr(scheduler, "num_inference_steps", None) == steps
    if is_shorter and getattr(scheduler, "order", 1) == 1:
        return steps if not has_begun or getattr(pipe, "num_timesteps", None) == steps else rows
    return rows


def other_rows(schedule: CacheSchedule, scheduler: Any, rows: int) -> ScheduleError:
    """The refusal of a run with other rows than its schedule.

    Args:
        schedule: of the run.
        scheduler: of the pipeline.
        rows: of the run.
    """
    remedy = f"use schedule.resample(steps={rows})"
    with suppress(ScheduleError):  # a sampler may have no number of steps that makes these rows
        steps = steps_of(scheduler, schedule.num_steps, schedule.name)
        remedy = f"call the pipeline with {steps} steps, or {remedy}"
    return ScheduleError(
        f"schedule {schedule.name!r} does not fit this run",
        expected=f"{schedule.num_steps} rows, the schedule's",
        found=f"{rows}",
        remedy=remedy,
    )


def is_resampled(schedule: CacheSchedule, rows: int) -> str:
    """The warning of a run with other rows than its schedule, which follows the schedule resampled to them."""
    return (
        f"schedule {schedule.name!r} has {schedule.num_steps} rows, this run {rows}, and the schedule is resampled: "
        f"{_EFFECT['number of steps']}; exact=True makes this an error"
    )


def other_cache(denoiser: nn.Module) -> str | None:
    """What else caches a denoiser's outputs, by name; None if nothing does.

    Args:
        denoiser: the module.
    """
    config = getattr(denoiser, "_cache_config", None)
    if config is not None:
        return f"diffusers' {type(config).__name__}"
    for part in denoiser.modules():
        registry = vars(part).get("_diffusers_hook")
        for hook in getattr(registry, "hooks", {}).values():
            if any(word in type(hook).__module__ for word in _OTHERS):
                return f"diffusers' {type(hook).__name__}"
    return "cache-dit" if getattr(denoiser, "_is_cached", False) else None


def latent_shape(inputs: Sequence[Any]) -> tuple[int, ...]:
    """The shape of what a denoiser denoises, without its batch.

    >>> import torch
    >>> latent_shape([torch.zeros(2, 4, 8, 8), 0.5])
    (4, 8, 8)
    """
    return tuple(next(tensors_in(inputs)).shape[1:])


def _tell(name: str, what: str, expected: Any, found: Any) -> None:
    if expected is None or expected == found:
        return
    problem = f"schedule {name!r} was made for another {what}; {_EFFECT[what]}"
    error = ScheduleError(problem, expected=_text(expected), found=_text(found))
    warnings.warn(EcadWarning(str(error)), stacklevel=3)


def _text(value: Any) -> str:
    return " x ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=_plain).encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (tuple, set, Iterator)) else str(value)
