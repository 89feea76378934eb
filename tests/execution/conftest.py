"""A Ray cluster of several nodes on this machine, whose workers find `tests/support/jobs.py`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from python_path import python_path

# A dead node is known after seconds instead of half a minute.
_IMPATIENT = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 3}


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """A head that works on nothing; tests add nodes, and take them away."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = python_path()
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    arguments = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 80 * 2**20}
    made = Cluster(initialize_head=True, head_node_args={**arguments, "_system_config": _IMPATIENT})
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    ray._private.worker.print_to_stdstream = lambda *_, **__: None
    yield made
    ray.shutdown()
    made.shutdown()
    os.environ.pop("PYTHONPATH")
    if before is not None:
        os.environ["PYTHONPATH"] = before
