from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from synthetic import evaluator, problem

from ecad.genetic.algorithms.surrogate_check import guesses
from ecad.genetic.algorithms.surrogate_search import Fast
from ecad.genetic.search import search


@pytest.mark.parametrize(("limited", "forecast"), [(False, "never"), (True, "never"), (False, "either")])
def test_the_surrogate_is_fitted_again_as_the_search_fitted_it(limited, forecast, monkeypatch):
    model = replace(problem(), forecast=forecast)
    if limited:
        model = replace(model, reusable=np.arange(model.shape[1]) % 3 != 1)
    used = []
    monkeypatch.setattr(Fast, "_features", lambda self, plans, original=Fast._features: record(self, plans, original))

    def record(self, plans, original):
        used.append(self._errors)
        return original(self, plans)

    fitted = []
    describe = "ecad.genetic.algorithms.surrogate_check.describe"
    study = search(model, evaluator(decibels=True), generations=4, population_size=6)
    monkeypatch.setattr(describe, lambda plans, sites, errors: fitted.append(errors) or np.zeros((len(plans), 2)))
    monkeypatch.setattr(
        "ecad.genetic.algorithms.surrogate_check.fit", lambda features, quality: lambda others: (others[:, 0], None)
    )
    assert len(guesses(study)) == 12
    assert len(np.unique(used[0])) > 1
    assert all(np.array_equal(errors, used[0]) for errors in fitted)
