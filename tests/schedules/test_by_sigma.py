from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecad import CacheSchedule, ScheduleError
from ecad.schedules.by_sigma import at_sigmas, by_sigma, positions_of, resampled_sigmas, sigmas_of
from ecad.schedules.forecast import Ahead, forecasts
from ecad.schedules.resample import resample_steps

SITES = [("denoiser", "output")]
KARRAS = np.linspace(14.6 ** (1 / 7), 0.03 ** (1 / 7), 20) ** 7


def products_of(steps: int, seed: int = 0) -> np.ndarray:
    outputs = np.random.default_rng(seed).standard_normal((steps, 3 * steps)).cumsum(axis=0)
    return outputs @ outputs.T


def made(computed: list[int], steps: int, sigmas: np.ndarray | None = None, **rest: object) -> CacheSchedule:
    bits = np.zeros((steps, 1), dtype=bool)
    bits[computed] = True
    config = {} if sigmas is None else {"sigmas": sigmas.tolist()}
    return CacheSchedule(bits, SITES, config=config, **rest)


@st.composite
def schedules(draw: st.DrawFn) -> CacheSchedule:
    steps = draw(st.integers(1, 40))
    falls = draw(st.lists(st.floats(0.01, 2), min_size=steps, max_size=steps))
    computed = sorted({0, *draw(st.sets(st.integers(0, steps - 1)))})
    return made(computed, steps, 20 * np.exp(-np.cumsum(falls)))


@given(schedule=schedules())
def test_at_its_own_noise_levels_a_schedule_computes_its_own_rows(schedule: CacheSchedule) -> None:
    sigmas = sigmas_of(schedule)
    assert sigmas is not None
    steps = by_sigma(schedule, [*sigmas, 0.0])
    assert np.array_equal(steps.computed, schedule.recompute[:, 0])
    assert [steps.computes(sigma) for sigma in np.float32(sigmas)] == schedule.recompute[:, 0].tolist()


@given(schedule=schedules(), new=st.lists(st.floats(0.001, 3), min_size=1, max_size=60), end=st.booleans())
def test_any_run_computes_its_first_row_and_never_more_than_all(
    schedule: CacheSchedule, new: list[float], end: bool
) -> None:
    sigmas = 30 * np.exp(-np.cumsum(new))
    steps = by_sigma(schedule, [*sigmas, 0.0 if end else sigmas[-1] / 2])
    assert steps.computed.shape == sigmas.shape
    assert steps.computed[0]


@given(case=st.integers(1, 30).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))))
def test_evenly_spread_noise_levels_give_what_resampling_gives(case: tuple[int, set[int]]) -> None:
    steps, some = case
    computed = sorted({0, *some})
    grid = 0.9 ** np.arange(steps)
    for times in (1, 2, 3):
        finer = resampled_sigmas(grid, times * steps)
        found = by_sigma(made(computed, steps, grid), [*finer, 0.0]).computed
        assert found.nonzero()[0].tolist() == resample_steps(computed, steps, times * steps)


def test_rows_stand_where_the_noise_is_that_the_schedule_computed_at() -> None:
    early = made([*range(10), 19], 20, KARRAS)
    bunched = np.exp(np.linspace(np.log(14.6), np.log(0.03), 20))
    found = by_sigma(early, [*bunched, 0.0]).computed
    # The tenth of these Karras levels is 1.17: the first 8 of the bunched ones are above it, the last far below.
    assert found[: int((bunched > KARRAS[9]).sum())].all()
    assert found.sum() < 12


def test_fewer_steps_keep_the_share_that_computes() -> None:
    found = by_sigma(made(list(range(0, 20, 2)), 20, KARRAS), [*KARRAS[::2], 0.0]).computed
    assert found.sum() == 5


def test_half_an_image_to_image_run_computes_as_the_schedule_does_there() -> None:
    schedule = made([0, *range(10, 20)], 20, KARRAS)
    assert by_sigma(schedule, [*KARRAS[10:], 0.0]).computed.all()
    assert by_sigma(schedule, KARRAS[:11]).computed.nonzero()[0].tolist() == [0]


def test_a_run_that_ends_above_zero_and_one_row() -> None:
    assert by_sigma(made([0], 1, np.array([1.0])), [5.0, 0.0]).computed.tolist() == [True]
    assert by_sigma(made([0, 3], 20, KARRAS), [0.02, 0.01]).computed.tolist() == [True]


def test_without_noise_levels_it_is_resampled() -> None:
    schedule = made([0, 1, 5, 9], 10)
    assert np.array_equal(by_sigma(schedule, [*KARRAS, 0.0]).computed, schedule.resample(20).recompute[:, 0])


@pytest.mark.parametrize("with_sigmas", [True, False])
@pytest.mark.parametrize("with_products", [True, False])
def test_at_a_row_the_forecast_is_that_of_the_step(with_sigmas: bool, with_products: bool) -> None:
    computed, products = [0, 1, 2, 5, 9, 14], products_of(20) if with_products else None
    schedule = made(computed, 20, KARRAS if with_sigmas else None, forecast=True, output_products=products)
    steps = by_sigma(schedule, [*KARRAS, 0.0])
    expected = forecasts(schedule.recompute[:, 0], products)
    for step in set(range(20)) - set(computed):
        last, before = [position for position in computed if position < step][:-3:-1]
        found = steps.ahead(KARRAS[step], [KARRAS[last], KARRAS[before]])
        assert found[:2] == pytest.approx(expected[step][:2], rel=1e-9)


def test_a_forecast_between_two_rows_lies_between_their_outputs() -> None:
    products = products_of(3)
    grid = np.array([4.0, 2.0, 1.0])
    steps = by_sigma(made([0, 1], 3, grid, forecast=True, output_products=products), [4.0, 2.0, 1.0, 0.0])
    # Halfway from the second row to the first, both of which are known, nothing is left to fit.
    scale, slope, _ = steps.ahead(np.sqrt(8.0), [2.0, 4.0])
    assert (scale, slope) == pytest.approx((1.0, -0.5))


def test_one_computed_row_or_no_forecast_repeats() -> None:
    products = products_of(20)
    alone = by_sigma(made([0], 20, KARRAS, forecast=True, output_products=products), [*KARRAS, 0.0])
    plain = by_sigma(made([0, 1], 20, KARRAS, output_products=products), [*KARRAS, 0.0])
    assert alone.ahead(KARRAS[3], [KARRAS[0]]) == plain.ahead(KARRAS[3], KARRAS[1::-1]) == Ahead()


def test_output_weights_hold_at_the_schedules_own_noise_levels_only() -> None:
    weights = [(1.0,), (0.9,), (1.0, 0.5), (0.8, 0.5, 0.25)]
    grid = np.array([8.0, 4.0, 2.0, 1.0])
    schedule = made([0, 1, 2], 4, grid, forecast=True, output_products=products_of(4), output_weights=weights)
    own, other = by_sigma(schedule, [8.0, 4.0, 2.0, 1.0, 0.0]), by_sigma(schedule, [8.0, 4.0, 2.0, 1.1, 0.0])
    assert own.ahead(4.0, [4.0, 8.0]) == Ahead(0.9)
    assert own.ahead(1.0, [2.0, 4.0, 8.0]) == Ahead(0.8, 0.5, 0.25)
    assert other.ahead(4.0, [4.0, 8.0]) == Ahead()
    # Between rows, and where fewer outputs are known than the weights want, the products say.
    assert own.ahead(1.0, [2.0, 4.0]) == other.ahead(1.0, [2.0, 4.0])
    assert own.ahead(1.5, [2.0, 4.0, 8.0]) == other.ahead(1.5, [2.0, 4.0, 8.0])
    assert own.keeps(1.0)
    assert not other.keeps(1.1)
    unnamed = schedule.replace(config={})
    assert by_sigma(unnamed, [9.0, 5.0, 2.0, 1.0, 0.0]).ahead(5.0, [5.0, 9.0]) == Ahead(0.9)


def test_a_call_between_two_rows_belongs_to_the_earlier_one() -> None:
    steps = by_sigma(made([0, 2], 4, np.array([8.0, 4.0, 2.0, 1.0])), [8.0, 4.0, 2.0, 1.0, 0.0])
    assert [steps.row(sigma) for sigma in (9.0, 8.0, 5.0, 4.0, 3.9, 2.0, 1.0, 0.1)] == [0, 0, 0, 1, 1, 2, 3, 3]


@given(grid=st.lists(st.floats(0.01, 2), min_size=1, max_size=30))
def test_places_are_rows_and_ascend(grid: list[float]) -> None:
    sigmas = 10 * np.exp(-np.cumsum(grid))
    assert positions_of(sigmas, sigmas).tolist() == pytest.approx(range(len(sigmas)))
    some = np.sort(np.concatenate([sigmas, np.geomspace(20, sigmas[-1] / 50, 40), [0.0]]))[::-1]
    assert (np.diff(positions_of(some, sigmas)) >= 0).all()
    assert positions_of([0.0, 1e9], sigmas).tolist() == [len(sigmas), 0.0]


def test_resampling_a_schedule_resamples_its_noise_levels() -> None:
    schedule = made([0, 10], 20, KARRAS).resample(40)
    sigmas = sigmas_of(schedule)
    assert sigmas is not None
    assert sigmas[::2] == pytest.approx(KARRAS)
    assert sigmas[-1] == pytest.approx(KARRAS[-1] / 2)
    assert sigmas_of(made([0], 2)) is None


@pytest.mark.parametrize("told", [[1.0], [2.0, 2.0], [1.0, 2.0], [2.0, 0.0], ["a", "b"], 3, [[2.0], [1.0]], [2, "1"]])
def test_other_noise_levels_of_a_schedule_are_refused(told: object) -> None:
    schedule = CacheSchedule([[True], [True]], SITES, config={"sigmas": told})
    with pytest.raises(ScheduleError, match=r"config\.sigmas: not the noise levels of a schedule: expected 2 positive"):
        by_sigma(schedule, [2.0, 1.0, 0.0])


@pytest.mark.parametrize("sigmas", [[], [1.0], [1.0, 2.0], [2.0, 1.0, 1.0], [2.0, 0.0, 0.0], [1.0, -1.0], [[2.0, 1.0]]])
def test_noise_levels_of_no_run_are_refused(sigmas: list[float]) -> None:
    with pytest.raises(ScheduleError, match="not the noise levels of a run"):
        by_sigma(made([0], 2), sigmas)


@given(schedule=schedules())
def test_a_schedule_at_its_own_noise_levels_is_itself(schedule: CacheSchedule) -> None:
    assert at_sigmas(schedule, [*sigmas_of(schedule), 0.0]) is schedule


def test_a_carried_schedule_is_that_of_the_rule() -> None:
    products = products_of(20)
    bits = np.zeros((20, 3), dtype=bool)
    bits[[0, 1, 4, 9, 15]] = True
    sites = [("layers.0", "attn"), ("layers.0", "ff"), ("layers.1", "ff")]
    schedule = CacheSchedule(
        bits, sites, config={"sigmas": KARRAS.tolist(), "height": 64}, forecast=True, output_products=products
    )
    run = np.append(KARRAS[::2] * 0.99, 0.0)
    steps, carried = by_sigma(schedule, run), at_sigmas(schedule, run)
    assert np.array_equal(carried.recompute, np.repeat(steps.computed[:, None], 3, axis=1))
    assert carried.config["height"] == 64
    assert sigmas_of(carried) == pytest.approx(run[:-1])
    expected = forecasts(steps.computed, carried.output_products)
    ran: list[int] = []
    for row, sigma in enumerate(run[:-1]):
        if not steps.computed[row]:
            found = steps.ahead(sigma, [run[position] for position in ran[:-3:-1]])
            assert (found.scale, found.slope or 0) == pytest.approx((expected[row].scale, expected[row].slope or 0))
        else:
            ran.append(row)
    assert carried.attributes["resampled_from"]["name"] == schedule.name


def test_a_schedule_of_single_components_cannot_be_carried() -> None:
    bits = [[True, True], [True, False]]
    schedule = CacheSchedule(bits, [("layers.0", "attn"), ("layers.0", "ff")], config={"sigmas": [2.0, 1.0]})
    with pytest.raises(ScheduleError, match=r"cannot be carried to other noise levels \(step 001\)"):
        at_sigmas(schedule, [2.0, 1.0, 0.5, 0.0])
