from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ecad import EcadError
from ecad.integrations.recorded import Recording, add_to_front, front_of, products_of
from ecad.schedules.front import Front, Point

SIGMAS = [*np.geomspace(80.0, 0.05, 12).tolist(), 0.0]
SHARES = np.linspace(1.0, 0.0, 13).tolist()


def outputs(seed: int = 0, rows: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, 200)).cumsum(axis=0).cumsum(axis=0)


@pytest.mark.parametrize(("sigmas", "prediction"), [(SIGMAS, "epsilon"), (SHARES, "flow_prediction")])
def test_a_front_has_every_number_of_computed_rows(sigmas: list[float], prediction: str) -> None:
    front = front_of("made", Recording(sigmas, products_of(outputs()), 4, prediction))
    assert [int(schedule.recompute.sum()) for schedule in front.schedules] == list(range(1, 13))
    assert all(one.quality <= other.quality + 1e-9 for one, other in pairwise(front.points))
    assert all(schedule.config["sigmas"] == tuple(sigmas[:-1]) for schedule in front.schedules)
    assert all(schedule.config["prediction_type"] == prediction for schedule in front.schedules)
    assert front.pick(speedup=3).recompute.sum() == 4


def test_a_recording_grows_by_images(tmp_path: Path) -> None:
    file, parts = tmp_path / "front.json", [products_of(outputs(seed)) for seed in (0, 1)]
    add_to_front(file, Recording(SIGMAS, parts[0], 1))
    front = add_to_front(file, Recording(SIGMAS, parts[1], 3))
    assert front.provenance["images"] == 4
    assert front.schedules[0].output_products == pytest.approx((parts[0] + 3 * parts[1]) / 4)


def test_another_front_is_not_recorded_into(tmp_path: Path) -> None:
    made = front_of("made", Recording(SIGMAS, products_of(outputs()), 1))
    Front("found", [Point(made.schedules[3], 0.5, 40.0)]).save(tmp_path / "front.json")
    with pytest.raises(EcadError, match=r"front\.json: not a recorded front"):
        add_to_front(tmp_path / "front.json", Recording(SIGMAS, products_of(outputs()), 1))
