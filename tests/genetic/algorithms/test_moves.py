from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from synthetic import problem

from ecad.genetic.algorithms.moves import _choose, exchange, mutate
from ecad.genetic.algorithms.spaced_steps import heuristics as starts
from ecad.schedules import flux_sites, heuristics, pixart_sites

SITES = flux_sites(2, 3)
schedules = st.integers(2, 7).flatmap(lambda steps: arrays(bool, (2, steps, len(SITES)), elements=st.booleans()))
seeds = st.integers(0, 2**32 - 1)


@given(schedules, seeds)
def test_mutation_leaves_its_input_and_the_first_step_alone(pair, seed):
    before = pair[0].copy()
    after = mutate(pair[0], SITES, np.random.default_rng(seed))
    assert np.array_equal(pair[0], before)
    assert np.array_equal(after[0], before[0])
    assert after.shape == before.shape


@given(schedules, seeds)
def test_exchange_swaps_one_range_of_steps_at_the_same_sites(pair, seed):
    first, second = exchange(*pair, SITES, np.random.default_rng(seed))
    # What one child has of the other parent, the other child has of the first.
    assert np.array_equal(first ^ second, pair[0] ^ pair[1])
    assert np.array_equal(first & second, pair[0] & pair[1])
    changed = first != pair[0]
    assert not changed[0].any()


def test_exchange_of_opposites_shows_the_region():
    ones, zeros = np.ones((6, len(SITES)), dtype=bool), np.zeros((6, len(SITES)), dtype=bool)
    kinds = set()
    for seed in range(300):
        child, _ = exchange(ones, zeros, SITES, np.random.default_rng(seed))
        steps, sites = ~child.all(axis=1), ~child.all(axis=0)
        assert np.array_equal(~child, steps[:, None] & sites)
        assert np.ptp(np.flatnonzero(steps)) == steps.sum() - 1
        blocks = {SITES[i][0] for i in np.flatnonzero(sites)}
        components = {SITES[i][1] for i in np.flatnonzero(sites)}
        kinds.add((len(blocks), len(components)))
    assert {(5, 6), (1, 3), (1, 1), (3, 1), (2, 1)} <= kinds


def test_a_choice_draws_what_numpys_own_draws():
    """So a study begun with the one can be resumed with the other."""
    own, numpys = np.random.default_rng(0), np.random.default_rng(0)
    for size in range(1, 200):
        values = np.arange(size) ** 2
        assert _choose(values, own) == numpys.choice(values)


def test_every_single_bit_can_be_flipped():
    """So every schedule can be reached."""
    bits = np.random.default_rng(0).random((2, len(SITES))) < 0.5
    flips = [mutate(bits, SITES, np.random.default_rng(seed)) != bits for seed in range(7000)]
    single = {int(np.flatnonzero(flip)[0]) for flip in flips if flip.sum() == 1}
    assert single == set(range(len(SITES), bits.size))


def test_mutation_moves_a_computed_step_as_a_whole():
    bits = np.zeros((6, len(SITES)), dtype=bool)
    bits[3] = True
    moved = [mutate(bits, SITES, np.random.default_rng(seed)) for seed in range(300)]
    rows = {tuple(np.flatnonzero(one.all(axis=1))) for one in moved if (one.all(axis=1) == one.any(axis=1)).all()}
    assert {(2,), (4,), (), (1, 3), (3, 5)} <= rows


def test_starts_are_whole_steps_each_once_with_the_usual_baselines():
    model = problem(steps=20, sites=pixart_sites(2))
    bits = starts(model, 24)
    assert bits.shape == (24, 20, 6)
    assert (bits.all(axis=2) == bits.any(axis=2)).all()
    assert bits[:, 0].all()
    assert len(np.unique(bits, axis=0)) == 24
    for n in (2, 3, 4):
        every_n = heuristics.every_n(model.template.sites, 20, n).recompute
        assert (bits == every_n).all(axis=(1, 2)).any()
    assert bits[:, :, 0].sum(axis=1).min() <= 2
    assert bits[:, :, 0].sum(axis=1).max() >= 18


@given(st.integers(2, 30), st.integers(1, 80))
def test_starts_fit_any_length(steps, count):
    bits = starts(problem(steps=steps, sites=pixart_sites(1)), count)
    assert 1 <= len(bits) <= count
    assert bits[:, 0].all()
    assert not bits.all(axis=(1, 2)).any()
    assert len(np.unique(bits, axis=0)) == len(bits)
