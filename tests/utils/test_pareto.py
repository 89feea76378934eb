from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymoo.indicators.hv import HV

from ecad.utils.pareto import hypervolume, pareto

points = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=0, max_size=12)


def columns(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([cost for cost, _ in pairs], dtype=np.int64), np.array(
        [quality for _, quality in pairs], dtype=float
    )


@given(points)
def test_front_holds_what_nothing_beats_once(pairs):
    chosen = pareto(*columns(pairs)).tolist()
    beaten = [
        any(c <= cost and q >= quality and (c, q) != (cost, quality) for c, q in pairs) for cost, quality in pairs
    ]
    expected = sorted({pair for pair, lost in zip(pairs, beaten, strict=True) if not lost})
    assert [pairs[i] for i in chosen] == expected
    assert all(pairs.index(pairs[i]) == i for i in chosen)  # of equals, the first


@given(points)
def test_hypervolume_is_pymoos(pairs):
    cost, quality = columns(pairs)
    expected = HV(ref_point=np.array([1.0, -1.0]))(np.column_stack([cost / 5, -quality])) if pairs else 0.0
    assert hypervolume(cost, quality, worst_cost=5, worst_quality=1.0) == pytest.approx(expected, abs=1e-12)
