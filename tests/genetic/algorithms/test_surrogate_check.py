from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from synthetic import evaluator, problem

from ecad.errors import NotFiniteError
from ecad.genetic.algorithms import surrogate_check, surrogate_search
from ecad.genetic.algorithms.surrogate_check import guesses
from ecad.genetic.algorithms.whole_steps import probes
from ecad.genetic.search import search


@pytest.fixture
def used(monkeypatch):
    """The step errors that the search describes schedules by, and those that the check does."""
    found = {}
    for module in (surrogate_search, surrogate_check):
        seen = found[module] = []

        def recording(plans, sites, errors, seen=seen, original=module.features):
            seen.append(errors)
            return original(plans, sites, errors)

        monkeypatch.setattr(module, "features", recording)
    return found


@pytest.mark.parametrize(("limited", "forecast"), [(False, "never"), (True, "never"), (False, "either")])
def test_the_surrogate_is_fitted_again_as_the_search_fitted_it(limited, forecast, used):
    model = replace(problem(), forecast=forecast)
    if limited:
        model = replace(model, reusable=np.arange(model.shape[1]) % 3 != 1)
    study = search(model, evaluator(decibels=True), generations=4, population_size=6)
    assert len(guesses(study)) == 12
    searched, checked = used[surrogate_search][0], used[surrogate_check]
    assert len(np.unique(searched)) > 1
    assert all(np.array_equal(errors, searched) for errors in checked)


def test_a_probe_that_was_given_up_counts_as_the_search_counted_it(used):
    """It is the worst of all: nothing else is known of its step."""
    model, plain = problem(), evaluator(decibels=True)
    lost = model.schedule(probes(model)[2], "lost").recompute

    def generate(schedule, items):
        if np.array_equal(model.plans(schedule.recompute[None])[0], lost):
            raise NotFiniteError("expected images, found values that are no finite numbers")
        return plain.generate(schedule, items)

    study = search(model, evaluator(decibels=True, generate=generate), generations=3, population_size=6)
    assert len(study.failures) == 1
    guesses(study)
    searched, checked = used[surrogate_search][0], used[surrogate_check][0]
    assert np.array_equal(searched, checked)
    worst = min(one.quality for one in study.candidates if one.generation == 0)
    assert searched[2] == pytest.approx(10 ** (-worst / 10))


def test_without_probes_all_steps_count_alike(used):
    study = search(problem(), evaluator(), generations=4, population_size=6)
    assert guesses(study)
    assert np.array_equal(used[surrogate_check][0], np.ones(4))
