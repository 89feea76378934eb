from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from ecad.genetic.study.export import MOST, handed_out


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
    # What is left out is a little cheaper, and a little worse, than something that is not.
    step = (costs[-1] - costs[0]) / (MOST - 1)
    assert all(min(dearer for dearer in chosen if dearer >= cost) - cost <= step for cost in costs)
