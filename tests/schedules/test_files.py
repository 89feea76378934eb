"""Schedule files in folders, and the metrics written into them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ecad.errors import ScheduleError
from ecad.schedules import CacheSchedule, heuristics, pixart_sites
from ecad.schedules.files import measured_speedup, update_metrics

EVERY_2 = heuristics.every_n(pixart_sites(1), 4, 2).replace(config={"height": 64})
GATE = {(1, "0", "custom_compute_attn"): {"name": "compute_attn_tgate", "kwargs": {"gate_step": 1}}}


@pytest.mark.parametrize(
    "changes",
    [
        {"recompute": np.ones((4, 3), dtype=bool)},
        {"forecast": True},
        {"forecast": True, "output_products": np.eye(4)},
        {"custom_compute": GATE},
        {"config": {"height": 128}},
    ],
)
def test_what_was_measured_of_another_schedule_is_not_written(tmp_path: Path, changes: dict) -> None:
    file = tmp_path / "a.json"
    EVERY_2.replace(**changes).save(file)
    with pytest.raises(ScheduleError, match="measure it again"):
        update_metrics(file, EVERY_2, {"total_macs": 1})
    assert CacheSchedule.load(file).metrics == {}


def test_what_others_wrote_into_the_file_meanwhile_stays(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    EVERY_2.replace(name="renamed", metrics={"total_macs": 1}, attributes={"by": "me"}).save(file)
    update_metrics(file, EVERY_2, {"latency": {"speedup": 2.0}})
    found = CacheSchedule.load(file)
    assert (found.name, found.attributes) == ("renamed", {"by": "me"})
    assert found.metrics == {"total_macs": 1, "latency": {"speedup": 2.0}}


@pytest.mark.parametrize(
    "latency", [None, [], {}, {"speedup": True}, {"speedup": "2"}, {"speedup": 0}, {"speedup": -1}]
)
def test_a_speedup_that_is_none_is_none(latency: object) -> None:
    assert measured_speedup(EVERY_2.replace(metrics={"latency": latency, "speedup": 3.0})) is None
