"""How good the surrogate's guesses were: each generation guessed again from those before it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ecad.genetic.algorithms.surrogate import describe, fit
from ecad.genetic.algorithms.surrogate_search import NEWEST
from ecad.genetic.genes import Forecast, bits_of
from ecad.genetic.study.study import Study
from ecad.schedules.plan import executed, forecast_matters
from ecad.schedules.schedule import Bits
from ecad.sites.readers import readers


class Guess(NamedTuple):
    """What the surrogate expected of a candidate, and what was found."""

    generation: int
    expected: float
    found: float


def guesses(study: Study, generations: int = 16) -> list[Guess]:
    """What the surrogate of mode `fast` knew of candidates before they were evaluated.

    Nothing of it is stored: a generation's surrogate is fitted again from the candidates of all earlier ones.

    Args:
        study: finished or not.
        generations: at most so many are guessed, evenly spaced over the study.

    Returns:
        one entry a candidate of these generations; none if the study was searched without a surrogate.
    """
    if study.settings.get("mode") != "fast" or not study.settings["ingredients"]["surrogate"]:
        return []
    schedules = [candidate.plain for candidate in study.candidates]
    forecast = study.settings.get("forecast", "never")
    plans = np.array([bits_of(schedule, forecast) for schedule in schedules])
    quality = np.array([candidate.quality for candidate in study.candidates])
    generation = np.array([candidate.generation for candidate in study.candidates], dtype=np.intp)
    # The first generation probes, the second is dynamic programming's; the surrogate picks the others.
    later = np.unique(generation[generation >= 2])
    chosen = later[np.unique(np.linspace(0, len(later) - 1, min(generations, len(later))).round().astype(np.intp))]
    return [guess for number in chosen for guess in _guessed(study, plans, quality, generation, int(number))]


def _guessed(study: Study, plans: Bits, quality: np.ndarray, generation: np.ndarray, number: int) -> Iterator[Guess]:
    before, now = np.flatnonzero(generation < number)[-NEWEST:], np.flatnonzero(generation == number)
    sites = tuple((block, component) for block, component in study.settings["sites"])
    reusable = np.array(study.settings.get("reusable", True), dtype=bool)
    errors = _step_errors(plans, quality, reusable, study.settings.get("forecast", "never"), readers(sites))
    model = fit(describe(plans[before], sites, errors), quality[before])
    expected, _ = model(describe(plans[now], sites, errors))
    for one, found in zip(expected.tolist(), quality[now].tolist(), strict=True):
        yield Guess(number, one, found)


def _step_errors(
    plans: Bits, quality: np.ndarray, reusable: Bits, forecast: Forecast, readers_of: np.ndarray
) -> np.ndarray:
    """As the search read them off its probes, which reuse what may be of one step; all alike if it made none."""
    steps = plans.shape[1]
    known = {plan.tobytes(): value for plan, value in zip(plans, quality, strict=True)}
    probes = np.ones((steps - 1, *plans.shape[1:]), dtype=bool)
    probes[np.arange(steps - 1), np.arange(1, steps)] = ~reusable
    probes = executed(probes, readers_of)
    if forecast == "either":
        probes[:, 0] = ~forecast_matters(probes, readers_of)[:, None]
    found = [known.get(probe.tobytes()) for probe in probes]
    if any(value is None for value in found):
        return np.ones(steps - 1)
    return np.asarray(10 ** (-np.array(found, dtype=np.float64) / 10))
