"""When a search ends by images or because nothing improves, and how images are divided."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import synthetic

from ecad.errors import EcadError
from ecad.genetic.budget import divide
from ecad.genetic.search import search

pytestmark = pytest.mark.usefixtures("few_offspring")


@pytest.mark.parametrize("most", [24, 40, 120, 333, 600, 5000])
@pytest.mark.parametrize("searches", [1, 3])
def test_what_is_divided_is_not_exceeded(most, searches):
    found = divide(most, searches=searches, most_prompts=4, most_validation=8)
    fitted = 2 * found.finalists * (found.validation_prompts + found.search_prompts)
    assert found.search_images + fitted + found.validation_prompts + found.search_prompts <= most
    assert 1 <= found.search_prompts <= 4
    assert 1 <= found.validation_prompts <= 8
    assert found.finalists >= 1


def test_all_is_for_the_search_if_no_prompts_validate():
    found = divide(100, search_prompts=7, most_prompts=7, most_validation=0)
    assert (found.search_prompts, found.search_images, found.validation_prompts) == (7, 100, 0)


def test_too_few_images_are_refused():
    with pytest.raises(EcadError, match="`max_images` 20 is too few"):
        divide(20, search_prompts=8, most_prompts=8, most_validation=8)


def test_a_search_makes_at_most_its_images_and_goes_on_where_it_ended(tmp_path):
    each = 6  # two prompts, three seeds
    options = {"generations": 4, "population_size": 6}
    short = search(synthetic.problem(), synthetic.evaluator(), tmp_path / "a", max_images=10 * each + 5, **options)
    assert sum(one.quality is not None for one in short.candidates) == 10
    whole = search(synthetic.problem(), synthetic.evaluator(), tmp_path / "a", **options)
    unlimited = search(synthetic.problem(), synthetic.evaluator(), tmp_path / "b", **options)
    assert [(one.cost, one.quality) for one in whole.candidates] == [(o.cost, o.quality) for o in unlimited.candidates]
    assert whole.history[-1].images > 10 * each


def test_a_search_ends_when_nothing_improves_also_if_it_is_run_again(tmp_path):
    # Whatever is recomputed, images are equally good: the cheapest schedule is the whole front.
    flat = replace(synthetic.evaluator(), score=lambda images, items: np.ones(len(items)))
    found = search(synthetic.problem(), flat, tmp_path, population_size=6, patience=2)
    generations = len(found.history)
    areas = [one.hypervolume for one in found.history]
    assert areas[-1] <= areas[-3] * 1.001
    assert generations < 12
    assert len(search(synthetic.problem(), flat, tmp_path, population_size=6, patience=2).history) == generations
    assert len(search(synthetic.problem(), flat, tmp_path, population_size=6, patience=4).history) == generations + 2


def test_generations_that_improve_are_not_the_last(tmp_path):
    patient = search(synthetic.problem(), synthetic.evaluator(), population_size=6, patience=3, generations=30)
    areas = [one.hypervolume for one in patient.history]
    later = [areas[i + 3] > areas[i] * 1.001 for i in range(len(areas) - 3)]
    assert all(later[:-1])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"max_images": 0}, "`max_images`: expected at least 1"),
        ({"patience": 0}, "`patience`: expected at least 1"),
        ({"patience": 2, "asynchronous": True}, "`patience` counts generations"),
    ],
)
def test_a_budget_that_is_none_is_refused(options, told):
    with pytest.raises(EcadError, match=told):
        search(synthetic.problem(), synthetic.evaluator(), **options)
