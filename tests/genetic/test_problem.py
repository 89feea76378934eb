from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from synthetic import problem

from ecad.cost.architectures import find_architecture
from ecad.cost.macs import count_macs, macs_table
from ecad.errors import ScheduleError
from ecad.genetic import Problem
from ecad.schedules import CacheSchedule, flux_sites, heuristics, pixart_sites
from ecad.schedules.plan import Action, make_plan
from ecad.sites.readers import readers

FLUX = problem(steps=4, sites=flux_sites(1, 2))
SHAPE = FLUX.shape
flux_bits = arrays(bool, (2, *SHAPE), elements=st.booleans())


@given(flux_bits)
def test_one_plan_is_one_genome(bits):
    first, second = FLUX.plans(bits)
    actions = [make_plan(schedule, readers(FLUX.template.sites)).actions for schedule in bits]
    assert np.array_equal(first, second) == np.array_equal(*actions)


@given(flux_bits)
def test_the_canonical_genome_is_canonical_runs_the_same_plan_and_costs_the_same(bits):
    canonical = FLUX.plans(bits)
    assert np.array_equal(FLUX.plans(canonical), canonical)
    for before, after in zip(bits, canonical, strict=True):
        plans = [make_plan(schedule, readers(FLUX.template.sites)) for schedule in (before, after)]
        assert np.array_equal(plans[0].actions, plans[1].actions)
    assert FLUX.costs(canonical).tolist() == FLUX.costs(bits).tolist()


@given(flux_bits)
def test_where_some_forecast_the_first_row_says_which_and_only_where_it_matters(bits):
    either = replace(FLUX, forecast="either")
    plans = either.plans(bits)
    assert np.array_equal(either.plans(plans), plans)
    assert np.array_equal(plans[:, 1:], FLUX.plans(bits)[:, 1:])
    assert either.costs(plans).tolist() == either.costs(bits).tolist()
    for before, plan in zip(bits, plans, strict=True):
        wanted, kept = either.schedule(before, "given"), either.schedule(plan, "kept")
        assert np.array_equal(either.bits(kept), plan)
        assert kept.recompute[0].all()
        assert wanted.forecast is not bool(before[0, 0])
        plan_of = make_plan(before, readers(FLUX.template.sites), forecast=True)
        matters = plan_of.gaps.any() or (plan_of.actions[:, -1] > Action.KEEP).any()
        assert kept.forecast == (wanted.forecast and bool(matters))


def test_the_first_step_and_dead_work_are_no_choices():
    sites = flux_sites(1, 1)
    bits = np.zeros((1, 3, 6), dtype=bool)
    bits[0, 2, sites.index(("single_0", "single_attn"))] = True  # its proj_out is reused: nobody looks
    expected = [[True] * 6, [False] * 6, [False] * 6]
    assert problem(steps=3, sites=sites).plans(bits)[0].tolist() == expected


def test_price_is_the_exact_cost_of_the_schedule():
    table = macs_table(find_architecture("PixArtAlphaImageGenerator"))
    pixart = Problem(heuristics.none(pixart_sites(28), 20), table.price)
    bits = np.random.default_rng(0).random((3, 20, 84)) < 0.5
    expected = [count_macs(CacheSchedule(one, pixart.template.sites)) for one in bits]
    assert pixart.costs(bits).tolist() == expected
    assert pixart.uncached_cost == count_macs(pixart.template)


@pytest.mark.parametrize(
    ("other", "found"),
    [
        (heuristics.none(pixart_sites(2), 4), r"4 steps of 6 sites \(attn1, attn2, ff\)"),
        (heuristics.none(pixart_sites(3), 5), r"5 steps of 9 sites"),
        (heuristics.none(flux_sites(1, 1), 5), r"5 steps of 6 sites \(full_attn"),
    ],
)
def test_a_schedule_of_another_model_or_length_is_refused(other, found):
    with pytest.raises(ScheduleError, match=f"does not fit this search: expected 5 steps of 6 sites .*found {found}"):
        problem().bits(other)
