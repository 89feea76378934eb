"""The price of a schedule: the paper's integers, what a cached forward really runs, and populations bit by bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ecad.cost import CostTable, count_macs, count_macs_by_step, find_architecture, macs_table
from ecad.cost.macs import _columns, uncached_macs
from ecad.cost.table import OUTSIDE
from ecad.errors import EcadError, ScheduleError
from ecad.runtime.cache import cached
from ecad.schedules import CacheSchedule, flux_sites, pixart_sites
from ecad.sites.names import DENOISER_SITES
from ecad.sites.readers import readers

from .test_measure import FLUX, PIXART, TINY, build, real_inputs

ALPHA, SIGMA, FLUX_DEV = "PixArtAlphaImageGenerator", "PixArtSigmaImageGenerator", "FluxImageGenerator"
ALPHA_SITES = pixart_sites(28)
TGATE = {"pipeline": {"name": "tgate", "kwargs": {"gate_step": 10}}}


def every(n: int, sites=ALPHA_SITES, **rest) -> CacheSchedule:
    recompute = np.zeros((20, len(sites)), dtype=bool)
    recompute[::n] = True
    return CacheSchedule(recompute, sites, **rest)


def tgate(gate: int = 10) -> CacheSchedule:
    """Everything recomputes, but cross-attention only until the gate."""
    recompute = np.ones((20, 28, 3), dtype=bool)
    recompute[gate:, :, 1] = False
    return CacheSchedule(recompute.reshape(20, 84), pixart_sites(28), config=TGATE)


# Schedule, generator, and the count that the paper's release gives for it.
PUBLISHED = [
    (every(1), ALPHA, 5_713_796_136_960),
    (every(3), ALPHA, 2_019_308_470_272),
    (tgate(), ALPHA, 4_005_912_084_480),
    (every(2), SIGMA, 2_871_882_547_200),
    (every(2, flux_sites()), FLUX_DEV, 99_542_189_998_080 // 2),
    (every(1, flux_sites(), config={"height": 1024, "width": 1024}), FLUX_DEV, 1_190_245_108_285_440 // 2),
]


@pytest.mark.parametrize(("schedule", "image_generator", "macs"), PUBLISHED)
def test_linear_accounting_is_the_published_integer(schedule, image_generator, macs):
    assert count_macs(schedule, image_generator, accounting="linear") == macs


def test_every_published_count_is_reproduced(shared_data):
    checked = 0
    for path in sorted((shared_data / "published-schedules").glob("*/*.json")):
        schedule = CacheSchedule.load(path)
        if "total_macs" in schedule.metrics:
            images = 2 if path.parent.name.startswith("flux") else 1
            counts = images * count_macs_by_step(schedule, generator_of(path), accounting="linear")
            steps = [step["macs"] for step in schedule.metrics["by_inference_step"].values()]
            assert counts.tolist() == steps, path
            assert (
                images * count_macs(schedule, generator_of(path), accounting="linear") == schedule.metrics["total_macs"]
            )
            checked += 1
    assert checked == 119


def generator_of(path: Path) -> str:
    families = {"pixart_alpha": ALPHA, "pixart_sigma": SIGMA, "flux": FLUX_DEV}
    return next(name for family, name in families.items() if path.parent.name.startswith(family))


@TINY
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_full_accounting_is_what_a_cached_run_computes(architecture, data):
    transformer, inputs = build(architecture), real_inputs(architecture)
    sites = macs_table(architecture).sites
    bits = data.draw(arrays(bool, (data.draw(st.integers(1, 5)), len(sites))))
    bits[data.draw(arrays(bool, len(bits)))] = False
    schedule = CacheSchedule(bits, sites, forecast=data.draw(st.booleans()))
    counted = 2 * count_macs_by_step(schedule, architecture)
    # A replayed row leaves out some of what is outside the components, which the price counts in full.
    run_once(transformer, inputs, schedule)  # the first time it also tries out what may be left out
    assert (flops_by_step(transformer, inputs, schedule) <= counted).all()
    transformer.proj_out.register_forward_hook(lambda *_: None)  # where somebody else looks, nothing is left out
    assert (flops_by_step(transformer, inputs, schedule) == counted).all()
    assert 2 * count_macs(schedule, architecture) == counted.sum()


def run_once(transformer, inputs, schedule):
    with torch.no_grad(), cached(transformer, schedule) as run:
        for step in range(schedule.num_steps):
            with run.step(step):
                transformer(**inputs)


def flops_by_step(transformer, inputs, schedule):
    flops = []
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), cached(transformer, schedule) as run:
        for step in range(schedule.num_steps):
            with run.step(step), FlopCounterMode(display=False) as counter:
                transformer(**inputs)
            flops.append(counter.get_total_flops())
    return np.array(flops)


def slow_price(bits: np.ndarray, forecast: bool, table: CostTable) -> int:
    """One bit after the other, in Python's integers; an output is dead if no step reads it before it is renewed."""
    steps = len(bits)
    computes = [[step == 0 or bool(bit) for bit in row] for step, row in enumerate(bits)]
    total = 0
    for step in range(steps):
        before = total
        for site, macs in enumerate(table.per_site.tolist()):
            if not computes[step][site]:
                continue
            reader = -1 if table.readers is None else table.readers[site]
            renewed = next((later for later in range(step + 1, steps) if computes[later][site]), steps)
            if reader < 0 or any(computes[later][reader] for later in range(step, renewed)):
                total += macs
        total += table.without_denoiser if forecast and total == before else table.fixed_per_step
    return total


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_population_costs_what_its_bits_cost_one_by_one(data):
    sites = data.draw(st.sampled_from([pixart_sites(2), flux_sites(1, 2)]))
    numbers = st.integers(1, 2**50 + 1)
    per_site = np.array(data.draw(st.lists(numbers, min_size=len(sites), max_size=len(sites))))
    known_readers = data.draw(st.sampled_from([None, readers(sites)]))
    table = CostTable(sites, data.draw(numbers), per_site, known_readers, data.draw(numbers))
    shape = data.draw(st.tuples(st.integers(0, 3), st.integers(1, 3), st.integers(1, 6)))
    population = data.draw(arrays(bool, (*shape, len(sites))))
    population[data.draw(arrays(bool, population.shape[:3]))] = False
    forecast = data.draw(arrays(bool, shape[:2]))
    prices = table.price(population, forecast)
    assert prices.dtype == np.int64
    assert prices.shape == shape[:2]
    bits_and_forecast = zip(population.reshape(-1, *population.shape[2:]), forecast.ravel(), strict=True)
    expected = [slow_price(bits, does, table) for bits, does in bits_and_forecast]
    assert prices.ravel().tolist() == expected
    by_component = table.price_components(population, forecast)
    assert set(by_component) == {component for _, component in sites} | {OUTSIDE}
    np.testing.assert_array_equal(sum(by_component.values()).sum(axis=-1), prices)


@pytest.mark.parametrize("steps", [255, 256, 1000])
def test_many_steps_are_counted_without_overflow(steps):
    table = CostTable((("0", "ff"),), 1, np.array([2**53 - 1]))
    assert table.price(np.ones((steps, 1), dtype=bool)) == steps * 2**53


def test_pricing_leaves_the_bits_alone():
    bits = np.zeros((4, 2, 84), dtype=bool)
    macs_table(find_architecture(ALPHA)).price(bits)
    assert not bits.any()


def test_dead_work_is_published_but_not_run():
    sites = flux_sites()
    recompute = np.ones((20, len(sites)), dtype=bool)
    recompute[:, [component == "single_proj_out" for _, component in sites]] = False
    dead, live = CacheSchedule(recompute, sites), recompute.copy()
    live[:, [component in ("single_attn", "single_proj_mlp") for _, component in sites]] = False
    for accounting, equal in (("full", True), ("linear", False)):
        prices = [count_macs(schedule, FLUX_DEV, accounting) for schedule in (dead, CacheSchedule(live, sites))]
        assert (prices[0] == prices[1]) is equal


def test_attention_products_are_added_in_full():
    # Per step and block, self-attention over 256 tokens and cross-attention to 120, of width 1152, for two passes.
    products = 20 * 28 * 2 * 2 * 1152 * 256 * (256 + 120)
    assert count_macs(every(1)) == 5_713_796_136_960 + products


def test_sigma_has_300_tokens_although_it_was_published_with_120():
    projection, keys_and_values, products = 4096 * 1152 + 1152**2, 28 * 2 * 1152**2, 28 * 2 * 1152 * 256
    longer = 20 * 2 * 180 * (projection + keys_and_values + products)
    assert count_macs(every(1), SIGMA) == count_macs(every(1), ALPHA) + longer
    assert count_macs(every(1), SIGMA, "linear") == count_macs(every(1), ALPHA, "linear")


def test_after_the_gate_only_half_the_guidance_pair_runs():
    for accounting in ("full", "linear"):
        plain = count_macs_by_step(tgate().replace(config={}), accounting=accounting)
        gated = count_macs_by_step(tgate(), accounting=accounting)
        assert gated[:10].tolist() == plain[:10].tolist()
        assert (2 * gated[10:]).tolist() == plain[10:].tolist()


@pytest.mark.parametrize("kwargs", [None, {}, {"gate_step": "10"}, {"gate_step": -1}, {"gate_step": True}])
def test_a_gate_that_is_no_step(kwargs):
    schedule = every(1, config={"pipeline": {"name": "tgate", "kwargs": kwargs}})
    with pytest.raises(ScheduleError, match="gate_step is not a step: expected 0 or more, found"):
        count_macs(schedule)


def test_which_size_is_counted():
    large = {"height": 1024, "width": 1024}
    assert count_macs(every(1, config=large)) == count_macs(every(1)) < count_macs(every(1), height=1024, width=1024)
    flux = every(1, flux_sites())
    assert count_macs(every(1, flux_sites(), config=large), FLUX_DEV) == count_macs(flux, FLUX_DEV, **large)
    assert count_macs(every(1, flux_sites(), config=large), FLUX_DEV, height=256, width=256) == count_macs(
        flux, FLUX_DEV
    )


def test_height_and_width_may_differ():
    schedule = CacheSchedule(np.ones((3, 6), dtype=bool), pixart_sites(2))
    wide, high = (count_macs(schedule, PIXART, **size) for size in ({"width": 128}, {"height": 128}))
    assert wide == high > count_macs(schedule, PIXART)


def test_a_config_with_a_size_that_is_none():
    schedule = every(1, flux_sites(), config={"height": "1024"})
    with pytest.raises(ScheduleError, match=r"config.height is not a size: expected .* pixels, found '1024'"):
        count_macs(schedule, FLUX_DEV)


OTHER = [
    (every(1), FLUX_DEV, "block 0, component full_attn", "171 sites in 57 blocks, found 84 sites in 28 blocks"),
    (every(1, pixart_sites(27)), ALPHA, "block 27, component attn1", "84 sites in 28 blocks, found 81 sites in 27"),
    (every(1, pixart_sites(29)), ALPHA, "block 28, component attn1", "84 sites in 28 blocks, found 87 sites in 29"),
]


@pytest.mark.parametrize(("schedule", "image_generator", "place", "sizes"), OTHER)
def test_a_schedule_of_another_model(schedule, image_generator, place, sizes):
    told = rf"schedule 'unnamed' does not fit {image_generator} \({place}\): expected {sizes}.*; name .* made for"
    with pytest.raises(ScheduleError, match=told) as error:
        count_macs(schedule, image_generator)
    assert "\n" not in str(error.value)


def test_sites_in_another_order_are_found():
    here, there = (("blocks.0", "ff"), ("blocks.1", "ff")), (("blocks.1", "ff"), ("blocks.0", "ff"))
    assert _columns(CacheSchedule([[True, False]], there), here, "any model") == [1, 0]


def test_an_unknown_accounting():
    with pytest.raises(EcadError, match="'flops' is unknown: expected 'full' or 'linear'"):
        count_macs(every(1), accounting="flops")


@pytest.mark.parametrize("shape", [(84,), (20, 83), (0, 84)])
def test_bits_of_another_shape(shape):
    with pytest.raises(ScheduleError, match=r"expected \(\.\.\., steps, 84\), found "):
        macs_table(find_architecture(ALPHA)).price(np.ones(shape, dtype=bool))


def test_a_table_is_measured_once():
    count_macs(every(2))
    measured = macs_table.cache_info().misses
    count_macs(every(3))
    assert macs_table.cache_info().misses == measured


def test_any_other_model_is_priced_from_its_own_configuration():
    for architecture in (PIXART, FLUX):
        table = macs_table(architecture)
        schedule = CacheSchedule(np.ones((3, len(table.sites)), dtype=bool), table.sites)
        assert count_macs(schedule, architecture) == 3 * (table.fixed_per_step + table.per_site.sum())


@pytest.mark.parametrize("key", ["fixed_per_step", "without_denoiser", "per_site"])
def test_a_table_with_prices_beyond_all_bounds_is_refused(key):
    table = CostTable((("0", "ff"),), 3, np.array([5]), None, 1)
    document = table.to_json()
    read = CostTable.from_json(document)
    assert read.price(np.array([[1], [0]]), forecast=True) == table.price(np.array([[1], [0]]), forecast=True) == 9
    with pytest.raises(ValueError, match="exceeds 64 bits"):
        CostTable.from_json({**document, key: [2**63] if key == "per_site" else 2**63})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"fixed_by_row": [3, 10**30]}, "exceeds 64 bits"),
        ({"fixed_by_row": [3, float("inf")]}, "exceeds 64 bits"),
        ({"fixed_by_row": [3]}, r"rows of shapes \(2, 1\) and \(1,\) for 1 sites"),
        ({"active": [[1, 1], [1, 1]]}, r"rows of shapes \(2, 2\)"),
        ({"active": [[0], [2]]}, "other numbers than 0 and 1"),
    ],
)
def test_a_table_by_row_is_read_again_or_refused(changes, told):
    table = CostTable(
        (("0", "ff"),), 0, np.array([5]), None, 1, active=np.array([[False], [True]]), fixed_by_row=np.array([0, 7])
    )
    document = table.to_json()
    read, bits = CostTable.from_json(document), np.array([[1], [0]])
    # The denoiser runs in the second row only, where it computes whatever its bits say.
    assert read.price(bits) == table.price(bits) == read.price(bits, forecast=True) == 12
    with pytest.raises(ValueError, match=told):
        CostTable.from_json({**document, **changes})
    del document["fixed_by_row"]
    with pytest.raises(KeyError):
        CostTable.from_json(document)


def test_a_denoiser_as_one_site_costs_what_its_forwards_cost():
    whole = CacheSchedule([[True], [False], [True], [False]], DENOISER_SITES, forecast=True)
    sites = macs_table(find_architecture(ALPHA)).sites
    same = CacheSchedule(np.repeat(whole.recompute, len(sites), axis=1), sites, forecast=True)
    for accounting in ("full", "linear"):
        assert count_macs(whole, ALPHA, accounting) == count_macs(same, ALPHA, accounting)
        assert 2 * count_macs(whole, ALPHA, accounting) == uncached_macs(whole, ALPHA, accounting)


def test_without_forecasts_a_repeated_output_of_a_denoiser_costs_nothing_either():
    whole = CacheSchedule([[True], [False]], DENOISER_SITES)
    assert 2 * count_macs(whole, ALPHA) == uncached_macs(whole, ALPHA)
