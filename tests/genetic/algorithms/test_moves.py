from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from synthetic import problem

from ecad.genetic.algorithms.moves import flip_bits, move_steps
from ecad.genetic.algorithms.spaced_steps import heuristics as starts
from ecad.schedules import flux_sites, heuristics, pixart_sites

SITES = flux_sites(2, 3)
schedules = st.integers(2, 7).flatmap(lambda steps: arrays(bool, (steps, len(SITES)), elements=st.booleans()))
seeds = st.integers(0, 2**32 - 1)


@given(schedules, seeds)
def test_moves_give_whole_steps_and_leave_their_input_and_the_first_row_alone(bits, seed):
    before = bits.copy()
    after = move_steps(bits, np.random.default_rng(seed))
    assert np.array_equal(bits, before)
    assert np.array_equal(after[0], before[0])
    assert after.shape == before.shape
    assert np.array_equal(after[1:].all(axis=1), after[1:].any(axis=1))


def test_a_step_is_moved_added_or_removed():
    bits = np.zeros((6, len(SITES)), dtype=bool)
    bits[[0, 3]] = True
    moved = [move_steps(bits, np.random.default_rng(seed)) for seed in range(300)]
    rows = [tuple(np.flatnonzero(one[1:, 0]) + 1) for one in moved]
    assert {(1,), (2,), (4,), (5,), (), (1, 3), (3, 5)} <= set(rows)
    # Rare if a step could only be removed and another one added.
    assert np.mean([len(row) == 1 and row != (3,) for row in rows]) > 0.15


def test_every_single_bit_can_be_flipped():
    """So every schedule can be reached."""
    bits = np.random.default_rng(0).random((2, len(SITES))) < 0.5
    before = bits.copy()
    flips = [flip_bits(bits, np.random.default_rng(seed)) != bits for seed in range(1000)]
    assert np.array_equal(bits, before)
    single = {int(np.flatnonzero(flip)[0]) for flip in flips if flip.sum() == 1}
    assert single == set(range(bits.size))
    assert 0.9 < np.mean([flip.sum() for flip in flips]) < 1.1


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
