from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from ecad.genetic.hand_out import MOST, handed_out


def front(costs):
    return [SimpleNamespace(cost=int(cost)) for cost in costs]


@pytest.mark.parametrize("count", [0, 1, MOST])
def test_a_short_front_is_handed_out_whole(count):
    found = front(range(5, 5 + count))
    assert handed_out(found) == found


@pytest.mark.parametrize("seed", range(5))
def test_of_a_long_front_both_ends_and_the_best_for_each_of_some_costs(seed):
    costs = np.unique(np.random.default_rng(seed).integers(10**6, 6 * 10**12, size=200))
    found = front(costs)
    chosen = [one.cost for one in handed_out(found)]
    assert MOST // 2 < len(chosen) <= MOST
    assert (chosen[0], chosen[-1]) == (costs[0], costs[-1])
    # Whatever somebody can pay, what is handed out costs at most one part in MOST - 1 of the range less.
    step = (costs[-1] - costs[0]) / (MOST - 1)
    for budget in costs:
        best = max(cost for cost in chosen if cost <= budget)
        assert max(costs[costs <= budget]) - best <= step
