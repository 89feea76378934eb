"""The table of inner products that a schedule may carry."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecad.errors import ScheduleError
from ecad.schedules import CacheSchedule, heuristics, pixart_sites
from ecad.schedules.output_products import read_products, resampled_products, same_products, written_products

SITES = pixart_sites(2)


def products_of(steps: int, seed: int = 0) -> np.ndarray:
    outputs = np.random.default_rng(seed).normal(size=(steps, 5)).cumsum(axis=0)
    products = outputs @ outputs.T
    return (products + products.T) / 2


def schedule(steps: int = 4, seed: int = 0) -> CacheSchedule:
    every_2 = heuristics.every_n(SITES, steps, 2)
    return every_2.replace(forecast=True, output_products=products_of(steps, seed))


@given(st.integers(1, 12), st.integers(0, 99))
def test_its_lower_triangle_is_all_of_it(steps: int, seed: int) -> None:
    table = products_of(steps, seed)
    assert np.array_equal(read_products(written_products(table), steps), table)


def test_it_is_read_only_and_a_copy_of_what_was_given() -> None:
    given_table = products_of(4)
    kept = heuristics.none(SITES, 4).replace(output_products=given_table).output_products
    given_table[0, 0] = 7.0
    assert kept is not None
    assert kept[0, 0] != 7.0
    with pytest.raises(ValueError, match="read-only"):
        kept[0, 0] = 1.0


def test_schedules_that_know_others_are_others() -> None:
    assert schedule(seed=0) == schedule(seed=0)
    assert schedule(seed=0) != schedule(seed=1)
    assert schedule() != schedule().replace(output_products=None)
    assert same_products(None, None)
    assert not same_products(None, products_of(2))


def test_what_was_measured_goes_when_it_changes() -> None:
    measured = schedule().replace(metrics={"total_macs": 1})
    assert measured.replace(output_products=products_of(4)).metrics == {"total_macs": 1}
    assert measured.replace(output_products=products_of(4, seed=1)).metrics == {}
    assert measured.replace(output_products=None).metrics == {}


def test_other_bits_keep_it() -> None:
    one = schedule()
    other = one.replace(recompute=np.ones_like(one.recompute))
    assert same_products(other.output_products, one.output_products)


@pytest.mark.parametrize(
    ("table", "found"),
    [
        (np.eye(3), "shape (3, 3)"),
        (np.full((4, 4), np.nan), "others"),
        (np.arange(16.0).reshape(4, 4), "others"),
        (-np.eye(4), "-1"),
    ],
)
def test_what_is_no_such_table_is_refused(table: np.ndarray, found: str) -> None:
    with pytest.raises(ScheduleError, match=r"cache_schedule\.output_products: not a table of inner prod") as error:
        heuristics.none(SITES, 4).replace(output_products=table)
    assert error.value.found == found


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1.0]], "expected 4 rows of 1 to 4 numbers, found 1 rows of 1"),
        ([[1.0], [1.0], [1.0], [1.0]], "found 4 rows of 1, 1, 1, 1"),
        ([], "found 0 rows of nothing"),
        ([["1"]], 'expected a valid number, found "1"'),
        ("none", "expected a valid list"),
    ],
)
def test_a_file_s_rows_are_checked(rows: object, message: str) -> None:
    document = schedule().to_json()
    document["cache_schedule"]["output_products"] = rows
    with pytest.raises(ScheduleError) as error:
        CacheSchedule.from_json(document)
    assert "output_products" in str(error.value)
    assert message in str(error.value)


def test_resampled_it_is_that_of_outputs_in_between() -> None:
    outputs = np.random.default_rng(3).normal(size=(6, 4))
    between = np.array([np.interp(np.arange(12) / 2, np.arange(6), column) for column in outputs.T]).T
    np.testing.assert_allclose(resampled_products(outputs @ outputs.T, 12), between @ between.T)
    np.testing.assert_allclose(resampled_products(outputs @ outputs.T, 3), outputs[::2] @ outputs[::2].T)
    assert resampled_products(np.eye(1), 3).tolist() == np.ones((3, 3)).tolist()


def test_a_resampled_schedule_takes_it_along() -> None:
    found = schedule(steps=4).resample(steps=8)
    assert found.output_products is not None
    assert found.output_products.shape == (8, 8)
    assert heuristics.every_n(SITES, 4, 2).resample(steps=8).output_products is None
