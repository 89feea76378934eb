from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from synthetic import problem, quality

from ecad.genetic.algorithms.moves import flip_bits
from ecad.genetic.algorithms.surrogate import features, fit, modelled_errors
from ecad.genetic.algorithms.whole_steps import best_steps

plans = st.integers(2, 7).flatmap(lambda steps: arrays(bool, (3, steps, 4), elements=st.booleans()))


@given(plans)
def test_harm_is_where_something_is_off(bits):
    bits[:, 0] = True
    bits[0] = True
    found = modelled_errors(bits, np.ones(bits.shape[1] - 1))
    assert (found >= 0).all()
    assert not found[0].any()
    # Recomputed before anything of its step is reused, an output is right.
    assert not found[:, :, 0][bits[:, 1:, 0]].any()
    assert (found[~bits[:, 1:]] > 0).all()


@given(st.integers(1, 6), st.lists(st.floats(0.01, 10), min_size=6, max_size=6))
def test_harm_of_whole_steps_is_what_dynamic_programming_makes_small(kept, errors):
    """So the surrogate starts from the same model."""
    chosen = best_steps(errors, kept)
    total = {}
    for bits in np.unpackbits(np.arange(64, dtype=np.uint8)[:, None], axis=1)[:, 2:].astype(bool):
        if bits.sum() == kept - 1:
            whole = np.append(True, bits)[None, :, None] & np.ones((1, 1, 3), dtype=bool)
            total[(0, *(np.flatnonzero(bits) + 1).tolist())] = modelled_errors(whole, np.array(errors)).sum()
    assert total[chosen] == pytest.approx(min(total.values()))


def test_stale_neighbours_spoil_a_recomputation():
    bits = np.ones((2, 3, 4), dtype=bool)
    bits[:, 1] = False
    bits[0, 2, :3] = False  # the last site computes among reused ones
    found = modelled_errors(bits, np.ones(2))
    assert found[0, 1, 3] > 0
    assert found[1, 1, 3] == 0


def test_it_ranks_what_it_has_not_seen():
    model, random = problem(steps=8), np.random.default_rng(0)
    sites = model.template.sites
    bits = random.random((60, 1, 1)) < random.random((60, 8, 6))
    near = np.array([flip_bits(one, random) for one in bits[random.integers(60, size=40)]])
    known, new = model.plans(bits), model.plans(near)
    errors = np.ones(7)
    predict = fit(features(known, sites, errors), quality(known))
    expected, deviation = predict(features(new, sites, errors))
    truth = quality(new)
    assert np.corrcoef(expected, truth)[0, 1] > 0.9
    assert (np.abs(expected - truth) < 3 * deviation + 1e-9).mean() > 0.7
    # What was measured is known better than what was not.
    assert predict(features(known, sites, errors))[1].mean() < deviation.mean()


def test_what_is_all_alike_can_be_fitted():
    features = np.ones((3, 4))
    mean, deviation = fit(features, np.array([1.0, 2.0, 3.0]))(features)
    assert mean == pytest.approx([2.0, 2.0, 2.0], abs=0.1)
    assert np.isfinite(deviation).all()
