"""How good the surrogate's predictions were: each generation is predicted again from the ones before it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ecad.genetic.algorithms.surrogate import features, fit
from ecad.genetic.algorithms.surrogate_search import MAX_TRAINING_CANDIDATES
from ecad.genetic.algorithms.whole_steps import probes, read_probes
from ecad.genetic.genes import SearchSpace
from ecad.genetic.study.study import Study
from ecad.schedules.schedule import Bits


class Guess(NamedTuple):
    """The quality that the surrogate expected of a candidate, and the one that was found."""

    generation: int
    expected: float
    found: float


def guesses(study: Study, generations: int = 16) -> list[Guess]:
    """What the surrogate of mode `fast` expected of candidates before they were evaluated.

    None of it is stored: a generation's surrogate is fitted again to the candidates of all earlier ones.

    Args:
        study: finished or not.
        generations: the largest number of generations to predict, evenly spaced over the study.

    Returns:
        one entry per candidate of these generations; none if the study was searched without a surrogate.
    """
    if study.settings["mode"] != "fast" or not study.settings.get("ingredients", {}).get("surrogate"):
        return []
    candidates = study.candidates
    if not candidates:
        return []
    plans = np.array([study.space.bits(candidate.plain) for candidate in candidates])
    quality = np.array([candidate.quality for candidate in candidates])
    generation = np.array([candidate.generation for candidate in candidates], dtype=np.intp)
    first = generation == 0
    failed = sum(name.startswith("gen_000_") for name in study.failures)
    step_errors = _step_errors(study.space, plans[first], quality[first], failed)
    described = features(plans, study.space.template.sites, step_errors)
    # The first generation probes, the second holds whole-step schedules; the surrogate chooses all others.
    later = np.unique(generation[generation >= 2])
    chosen = later[np.unique(np.linspace(0, len(later) - 1, min(generations, len(later))).round().astype(np.intp))]
    found = []
    for number in chosen.tolist():
        before, now = np.flatnonzero(generation < number)[-MAX_TRAINING_CANDIDATES:], generation == number
        expected, _ = fit(described[before], quality[before])(described[now])
        found += [Guess(number, *pair) for pair in zip(expected.tolist(), quality[now].tolist(), strict=True)]
    return found


def _step_errors(space: SearchSpace, plans: Bits, quality: np.ndarray, failed: int) -> np.ndarray:
    """The step errors that the search used, by the first generation: all equal if it holds no probes.

    `failed` candidates of that generation could not be evaluated.
    """
    known = {plan.tobytes() for plan in plans}
    missing = sum(probe.tobytes() not in known for probe in probes(space))
    if missing > failed or not len(plans):
        return np.ones(space.shape[0] - 1)
    return read_probes(space, plans, quality)
