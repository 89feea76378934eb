"""The plan against a brute-force account of who computes what and who looks at it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ecad.schedules import flux_sites
from ecad.schedules.plan import Action, executed, make_plan
from ecad.sites.readers import readers as flux_readers


@st.composite
def problems(draw):
    """Bits (steps, sites), readers one deep, bytes of each site's output and of the denoiser's, and a running order."""
    steps, sites = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    bits = draw(hnp.arrays(bool, (steps, sites)))
    final = draw(hnp.arrays(bool, sites))
    choices = np.flatnonzero(final).tolist()
    readers = [draw(st.sampled_from([-1, *choices])) if not is_final else -1 for is_final in final]
    sizes = draw(hnp.arrays(np.int64, sites + 1, elements=st.integers(1, 100)))
    # A reader runs after those it reads.
    order = sorted(draw(st.permutations(range(sites))), key=lambda site: bool(final[site]))
    return bits, np.array(readers), sizes, np.array(order)


KINDS = {
    "runs": (Action.COMPUTE, Action.KEEP),
    "reuses": (Action.REUSE, Action.FREE),
    "skips": (Action.SKIP,),
}


class Account:
    """What the schedule means, followed output by output; under a forecast the denoiser is one more site, the last."""

    def __init__(self, bits, readers, forecast=False):
        steps, sites = bits.shape
        # The step whose output a site shows at each step.
        self.source = [
            [max(s for s in range(step + 1) if s == 0 or bits[s, site]) for site in range(sites)]
            for step in range(steps)
        ]
        self.needed, self.looks = set(), set()
        for step in range(steps):
            for site in range(sites):
                if readers[site] == -1:
                    self._look(step, site, readers)
        if forecast:
            ran = sorted({step for step, _ in self.needed})
            self.looks = {(step, site) for step, site in self.looks if step in ran}
            for step in range(steps):
                self.source[step].append(max(s for s in ran if s <= step))
                self.looks.add((step, sites))
            self.needed |= {(step, sites) for step in ran}

    def _look(self, step, site, readers):
        self.looks.add((step, site))
        source = self.source[step][site]
        if (source, site) in self.needed:
            return
        self.needed.add((source, site))
        for producer in np.flatnonzero(readers == site):
            self._look(source, producer, readers)


def held_after(account, order):
    """After each call, in running order, the outputs that some later call looks at: (step of origin, site)."""
    steps = len(account.source)
    calls = [(step, site) for step in range(steps) for site in order]
    for now, (step, site) in enumerate(calls):
        later = [(account.source[s][i], i) for s, i in calls[now + 1 :] if (s, i) in account.looks]
        computed = {call for call in calls[: now + 1] if call in account.needed}
        yield step, site, computed.intersection(later)


@given(problems())
def test_what_runs_is_what_somebody_looks_at(problem):
    bits, readers, _, _ = problem
    account = Account(bits, readers)
    expected = np.zeros_like(bits)
    for call in account.needed:
        expected[call] = True
    np.testing.assert_array_equal(executed(bits, readers), expected)


@given(problems())
def test_every_action_is_the_account_s(problem):
    bits, readers, _, order = problem
    account = Account(bits, readers)
    actions = make_plan(bits, readers).actions
    for step, site, held in held_after(account, order):
        is_held = any(i == site for _, i in held)
        if (step, site) in account.needed:
            expected = Action.KEEP if is_held else Action.COMPUTE
        elif (step, site) in account.looks:
            expected = Action.REUSE if is_held else Action.FREE
        else:
            expected = Action.SKIP
        assert actions[step, site] == expected


@given(problems(), st.integers(1, 3))
def test_peak_is_the_least_that_any_cache_must_hold(problem, passes):
    bits, readers, sizes, order = problem
    account = Account(bits, readers)
    calls = list(held_after(account, order))
    per_step = [[held for step, _, held in calls if step == row] for row in range(len(bits))]
    # Each pass's calls of a step run after the earlier passes' calls of that step.
    now = [set()] * passes
    peak = 0
    for row in per_step:
        for index in range(passes):
            for held in row:
                now[index] = held
                peak = max(peak, sum(int(sizes[i]) * (k + 1) for k in range(passes) for _, i in now[k]))
    plan = make_plan(bits, readers)
    by_pass = sizes * np.arange(1, passes + 1)[:, None]
    assert plan.peak(by_pass, order) == plan.peak(by_pass[:, :-1], order) == peak
    if passes == 1:
        assert plan.peak(sizes, order) == peak


@given(problems(), st.integers(1, 3))
def test_peak_counts_what_lines_are_made_of_and_the_denoiser_s_output_last(problem, passes):
    bits, readers, sizes, order = problem
    plan = make_plan(bits, readers, forecast=True)
    by_pass = sizes * np.arange(1, passes + 1)[:, None]
    now, peak = np.zeros_like(by_pass), 0
    for held in plan.held:
        for index in range(passes):
            for site in [*order, bits.shape[1]]:
                now[index, site] = held[site]
                peak = max(peak, int((now * by_pass).sum()))
    assert plan.peak(by_pass, order) == peak


@given(problems())
def test_lines_are_held_as_long_as_somebody_needs_what_they_are_made_of(problem):
    bits, readers, _, _ = problem
    account = Account(bits, readers, forecast=True)
    plan = make_plan(bits, readers, forecast=True)
    for step, site in np.ndindex(*plan.actions.shape):
        kind = "runs" if (step, site) in account.needed else "reuses" if (step, site) in account.looks else "skips"
        assert Action(plan.actions[step, site]) in KINDS[kind]
    for site in range(plan.actions.shape[1]):
        ran = [step for step in range(len(bits)) if (step, site) in account.needed]
        reuses = {
            run: [s for s, i in account.looks if i == site and s > run and account.source[s][site] == run]
            for run in ran
        }
        needed_until: dict[tuple[str, int], int] = {}
        for before, run in zip([None, *ran], ran, strict=False):
            has_line = before is not None and bool(reuses[run])
            assert plan.gaps[run, site] == (run - before if has_line else 0)
            is_denoiser = site == len(bits[0])
            if reuses[run]:
                needed_until["point" if has_line and not is_denoiser else "output", run] = max(reuses[run])
            if has_line:
                drawn_until = max(reuses[run]) if is_denoiser else run
                needed_until["output", before] = max(drawn_until, needed_until.get(("output", before), 0))
        for step in range(len(bits)):
            held = {what for what, until in needed_until.items() if what[1] <= step < until}
            assert plan.held[step, site] == len(held)


@given(problems())
def test_replaying_a_plan_never_misses_and_ends_empty(problem):
    bits, readers, _, order = problem
    account, kept = Account(bits, readers), {}
    for step, row in enumerate(make_plan(bits, readers).actions):
        for site in order:
            if row[site] == Action.KEEP:
                kept[site] = step
            elif row[site] in (Action.REUSE, Action.FREE):
                assert kept[site] == account.source[step][site]
                if row[site] == Action.FREE:
                    del kept[site]
    assert kept == {}


@given(problems(), st.integers(0, 3))
def test_a_population_is_executed_as_its_schedules_are(problem, seed):
    bits, readers, _, _ = problem
    population = np.random.default_rng(seed).random((2, 3, *bits.shape)) < 0.5
    runs = executed(population, readers)
    for index in np.ndindex(2, 3):
        plan = make_plan(population[index], readers)
        np.testing.assert_array_equal(runs[index], plan.actions <= Action.KEEP)
        np.testing.assert_array_equal(plan.counts()[:, 0], runs[index].sum(axis=1))
        assert (plan.counts().sum(axis=1) == bits.shape[1]).all()


def test_the_bits_given_are_left_alone():
    bits = np.zeros((2, 3), dtype=bool)
    executed(bits)
    make_plan(bits)
    assert not bits.any()


def test_without_readers_only_the_first_step_is_forced():
    bits = np.array([[False, False], [True, False]])
    assert executed(bits).tolist() == [[True, True], [True, False]]


def test_a_reader_with_a_reader_is_refused():
    with pytest.raises(ValueError, match="a reader has a reader"):
        make_plan(np.ones((2, 3), dtype=bool), np.array([1, 2, -1]))


def test_flux_attention_that_a_later_step_reuses_is_computed_though_proj_out_is_not():
    sites = flux_sites(0, 1)
    readers = flux_readers(sites)
    attn, proj_mlp, proj_out = (
        sites.index(("single_0", f"single_{name}")) for name in ("attn", "proj_mlp", "proj_out")
    )
    bits = np.ones((3, 3), dtype=bool)
    bits[1, proj_out] = False
    assert executed(bits, readers)[1].tolist() == [False, False, False]
    bits[2, attn] = False  # the last step shows the attention of the middle one
    actions = make_plan(bits, readers).actions
    assert actions[1, [attn, proj_mlp, proj_out]].tolist() == [Action.KEEP, Action.SKIP, Action.FREE]
    assert actions[2, [attn, proj_mlp, proj_out]].tolist() == [Action.FREE, Action.COMPUTE, Action.COMPUTE]
