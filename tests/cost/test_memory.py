from __future__ import annotations

import numpy as np
import pytest

from ecad.cost import find_architecture
from ecad.cost.macs import macs_table
from ecad.cost.memory import kept_bytes_of_many, sites_within


@pytest.mark.parametrize("forecast", [False, True])
def test_within_a_limit_nothing_keeps_more_though_sites_that_feed_a_reused_one_wait_beside_it(forecast: bool) -> None:
    architecture = find_architecture("FluxImageGenerator")
    sites = macs_table(architecture).sites
    # What feeds proj_out is reused in the second and fourth step, so it waits in the third, in which proj_out is.
    is_last = np.array([component == "single_proj_out" for _, component in sites])
    bits = np.zeros((1, 8, len(sites)), dtype=bool)
    bits[:, 1::2] = is_last
    limit = int(kept_bytes_of_many(bits, sites, architecture, forecast)[0]) // 2
    chosen = sites_within(limit, architecture, forecast)
    kept = kept_bytes_of_many(bits | ~chosen, sites, architecture, forecast)
    assert 0 < kept[0] <= limit
    assert 0 < chosen.sum() < len(sites)
