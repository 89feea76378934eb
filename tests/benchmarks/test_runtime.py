"""The measurement of the runtime, on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import runtime

import ecad
from ecad.schedules import CacheSchedule, heuristics, pixart_sites

ROOT = Path(ecad.__file__).parents[1]
PIXART = {
    "_class_name": "PixArtTransformer2DModel",
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "num_layers": 2,
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 8,
    "caption_channels": 12,
    "cross_attention_dim": 16,
    "norm_type": "ada_norm_single",
    "norm_num_groups": 1,
    "use_additional_conditions": False,
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """One round of the bare pipeline and two schedules in two workers, and the counts of a reused forward."""
    folder = tmp_path_factory.mktemp("runtime")
    model = {"config": PIXART, "dtype": "float32", "size": 64, "steps": 4, "text_tokens": 5, "guidance_pair": True}
    (folder / "model.json").write_text(json.dumps(model))
    files: dict[str, Path | None] = {"bare": None}
    for schedule in (heuristics.none(pixart_sites(2), 4), heuristics.every_n(pixart_sites(2), 4, 2)):
        files[str(len(files))] = folder / f"{len(files)}.json"
        schedule.replace(name=str(len(files) - 1)).save(files[str(len(files) - 1)])
    with runtime.workers({runtime.HERE: ROOT, "beside": ROOT}, folder / "model.json") as by_checkout:
        found = runtime.measure(by_checkout, files, 1)
        forward = runtime.reused_forward(by_checkout, files["2"])
        plain = by_checkout[runtime.HERE].generate(files["2"], plain=True)
    return found, forward, plain


def test_workers_generate_the_same_images_in_turns(images):
    found, _, plain = images
    of = {name: {one: images[0]["latents"] for one, images in by.items()} for name, by in found.items()}
    assert of[runtime.HERE] == of["beside"]
    assert of[runtime.HERE]["bare"] == of[runtime.HERE]["1"] != of[runtime.HERE]["2"] == plain["latents"]


def test_a_row_has_the_measured_fraction_of_the_theoretical_speed_up(images):
    found, *_ = images
    schedule = CacheSchedule(np.ones((4, 1), bool), (("a", "b"),), name="2")
    row = runtime.row_of(schedule, 2.0, found)
    here, bare = (found[runtime.HERE][name][0]["processor"] for name in ("2", "bare"))
    assert row[runtime.HERE]["processor"]["fraction"] == bare / here / 2.0
    assert row[runtime.HERE]["peak_bytes"] == row[runtime.HERE]["predicted_bytes"] > 0
    assert row["same_latents"]


def test_a_reused_forward_dispatches_less_than_plain_hooks_leave(images):
    _, forward, _ = images
    assert forward[runtime.HERE] == forward["beside"]
    assert forward[runtime.HERE]["operators"] < forward["plain hooks"]["operators"]


def test_a_ratio_is_that_of_its_round():
    assert runtime.ratio([2.0, 4.0, 9.0], [1.0, 2.0, 3.0]) == {"median": 2.0, "low": 2.0, "high": 3.0}
