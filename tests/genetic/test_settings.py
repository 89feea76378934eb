"""With what a search begins, by what is known of the model's outputs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from synthetic import COEFFICIENTS, content, evaluator, problem

from ecad.calibration.step_choice import Outputs, best_forecasts, harms
from ecad.genetic.search import search

pytestmark = pytest.mark.usefixtures("few_offspring")


def whole(schedule):
    """The computed steps of a schedule that forecasts all others as wholes; None for any other schedule."""
    runs = schedule.recompute.any(axis=1)
    is_whole = schedule.forecast and np.array_equal(runs, schedule.recompute.all(axis=1))
    return tuple(np.flatnonzero(runs).tolist()) if is_whole else None


@pytest.mark.parametrize("max_cost", [None, 0.5])
def test_it_begins_with_what_a_calibration_chooses(max_cost):
    model, plain = replace(problem(), forecast="either"), evaluator(decibels=True)
    most = None if max_cost is None else max_cost * model.uncached_cost
    found = search(model, plain, generations=1, population_size=6, max_cost=most).candidates
    products = plain.outputs().products
    for harm in harms(COEFFICIENTS):
        for steps in best_forecasts(products, harm):
            if len(steps) < model.shape[0] - 1:  # else it is a probe, too, to which no limit applies
                assert any(whole(one.plain) == steps for one in found) == (max_cost is None or len(steps) < 3)
    unknown = evaluator(decibels=True, outputs_of=lambda items: Outputs(products, (), {}))
    assert len(search(model, unknown, generations=1, population_size=6).candidates) < len(found)


def test_a_study_of_before_goes_on_as_it_began(tmp_path):
    """Its settings have no coefficients of the sampler."""
    either = replace(problem(), forecast="either")
    before = evaluator(outputs_of=lambda items: Outputs(evaluator().outputs().products, (), {}))
    for folder, last in (("whole", before), ("resumed", evaluator())):
        search(either, before, tmp_path / folder, generations=2, population_size=6)
        search(either, last, tmp_path / folder, generations=3, population_size=6)
    assert content(tmp_path / "whole") == content(tmp_path / "resumed")
