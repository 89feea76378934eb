"""Keys of schedules tell images apart, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from ecad.schedules import CacheSchedule
from ecad.schedules.plan_key import is_uncached, plan_key

PATHS = (("layers.0", "attn2"), ("layers.1", "attn2"))


def _keyed(**changes):
    bits = np.array([[1, 1], [0, 1], [1, 0], [0, 0]], dtype=bool)
    return CacheSchedule(bits, PATHS).replace(**changes)


GATE = {(1, "layers.0", "custom_compute_attn"): {"name": "compute_attn_tgate", "kwargs": {"gate_step": 1}}}
MOVED = {(1, "layers.0", "custom_compute_attn"): {"name": "compute_attn_tgate", "kwargs": {"gate_step": 2}}}
WEIGHTS, OTHER_WEIGHTS = [[1.0]] * 4, [[1.0]] * 3 + [[0.5]]
PRODUCTS = np.minimum.outer(np.arange(4.0), np.arange(4.0)) + 1


@pytest.mark.parametrize(
    "changes",
    [
        {"forecast": True},
        {"forecast": True, "output_products": PRODUCTS},
        {"forecast": True, "output_products": PRODUCTS + np.eye(4)},
        {"forecast": True, "output_weights": WEIGHTS},
        {"forecast": True, "output_weights": WEIGHTS, "output_products": PRODUCTS},
        {"custom_compute": GATE},
        {"custom_compute": MOVED},
        {"sites": PATHS[::-1]},
        {"sites": (PATHS[0], ("layers.2", "attn2"))},
        {"recompute": np.ones((4, 2), dtype=bool)},
        {"recompute": np.ones((5, 2), dtype=bool)},
    ],
)
def test_a_key_names_all_that_a_schedule_s_images_depend_on(changes):
    variants = [{}, {"forecast": True}, {"forecast": True, "output_weights": OTHER_WEIGHTS}]
    variants += [{"forecast": True, "output_weights": WEIGHTS}, {"custom_compute": GATE}, changes]
    keys = [plan_key(_keyed(**variant)) for variant in variants]
    assert keys.count(keys[-1]) == variants.count(changes)
    assert not is_uncached(_keyed())
    assert not is_uncached(_keyed(recompute=np.ones((4, 2), dtype=bool), custom_compute=GATE))


def test_a_key_leaves_out_what_changes_no_image():
    same = [{"name": "x"}, {"metrics": {"total_macs": 1}}, {"config": {"a": 1}}, {"spare": np.ones((1, 2), dtype=bool)}]
    same += [{"recompute": np.array([[0, 0], [0, 1], [1, 0], [0, 0]], dtype=bool)}]  # the first step computes anyway
    assert {plan_key(_keyed(**changes)) for changes in same} == {plan_key(_keyed())}
    assert is_uncached(None)
    assert is_uncached(_keyed(recompute=np.ones((4, 2), dtype=bool), forecast=True))
