from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from ecad.genetic.study.export import MAX_EXPORTED, save_front, select_for_export
from ecad.schedules import CacheSchedule, heuristics, pixart_sites
from ecad.schedules.files import update_metrics


def front(costs):
    return [SimpleNamespace(cost=int(cost)) for cost in costs]


@pytest.mark.parametrize("count", [0, 1, MAX_EXPORTED])
def test_a_short_front_is_handed_out_whole(count):
    found = front(range(5, 5 + count))
    assert select_for_export(found) == found


@pytest.mark.parametrize("seed", range(5))
def test_of_a_long_front_both_ends_and_the_best_for_each_of_some_costs(seed):
    costs = np.unique(np.random.default_rng(seed).integers(10**6, 6 * 10**12, size=200))
    found = front(costs)
    chosen = [one.cost for one in select_for_export(found)]
    assert MAX_EXPORTED // 2 < len(chosen) <= MAX_EXPORTED
    assert (chosen[0], chosen[-1]) == (costs[0], costs[-1])
    # What is left out is a little cheaper, and a little worse, than something that is not.
    step = (costs[-1] - costs[0]) / (MAX_EXPORTED - 1)
    assert all(min(dearer for dearer in chosen if dearer >= cost) - cost <= step for cost in costs)


def test_a_front_that_is_written_again_keeps_what_was_measured_of_its_files(tmp_path):
    found = heuristics.every_n(pixart_sites(1), 4, 2).replace(name="gen_000_cand_000", metrics={"quality": 1.0})
    save_front([found], tmp_path)
    file = tmp_path / "front/gen_000_cand_000.json"
    update_metrics(file, CacheSchedule.load(file), {"latency": {"speedup": 1.5}})
    save_front([found.replace(metrics={"quality": 2.0})], tmp_path)
    assert CacheSchedule.load(file).metrics == {"quality": 2.0, "latency": {"speedup": 1.5}}
    save_front([found.replace(forecast=True, metrics={"quality": 3.0})], tmp_path)
    assert CacheSchedule.load(file).metrics == {"quality": 3.0}
