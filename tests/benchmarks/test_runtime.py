"""The measurement of the runtime, on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import runtime

import ecad
from ecad.schedules import heuristics, pixart_sites

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
    (folder / "model.json").write_text(json.dumps(model | {"folder": None}))
    variants: dict[str, dict[str, object]] = {"bare": {"schedule": None}}
    for name, schedule in {
        "all": heuristics.none(pixart_sites(2), 4),
        "every 2": heuristics.every_n(pixart_sites(2), 4, 2),
    }.items():
        schedule.save(folder / f"{name}.json")
        variants[name] = {"schedule": str(folder / f"{name}.json")}
    variants["every 2" + runtime.KEPT] = variants["every 2"] | {"again": True}
    with runtime.workers({runtime.HERE: ROOT, "beside": ROOT}, folder / "model.json") as by_checkout:
        found = runtime.measure(by_checkout, variants, 1)
        forward = runtime.reused_forward(by_checkout, variants["every 2"])
        plain = by_checkout[runtime.HERE].generate(variants["every 2"] | {"plain": True})
    return found, forward, plain


def test_workers_generate_the_same_images_in_turns(images):
    found, _, plain = images
    of = {name: {one: images[0]["latents"] for one, images in by.items()} for name, by in found.items()}
    here = of[runtime.HERE]
    assert here == of["beside"]
    assert here["bare"] == here["all"] != here["every 2"] == here["every 2" + runtime.KEPT] == plain["latents"]


def test_a_row_has_the_measured_fraction_of_the_theoretical_speed_up(images):
    found, *_ = images
    row = runtime.row_of("every 2", 2.0, found)
    here, bare = (found[runtime.HERE][name][0]["processor"] for name in ("every 2", "bare"))
    assert row[runtime.HERE]["processor"]["fraction"] == bare / here / 2.0
    assert row[runtime.HERE]["peak_bytes"] == row[runtime.HERE]["predicted_bytes"] > 0
    assert row["same_latents"]


def test_a_reused_forward_dispatches_less_than_plain_hooks_leave(images):
    _, forward, _ = images
    assert forward[runtime.HERE] == forward["beside"]
    assert forward[runtime.HERE]["operators"] < forward["plain hooks"]["operators"]


def test_a_ratio_is_that_of_its_round():
    assert runtime.ratio([2.0, 4.0, 9.0], [1.0, 2.0, 3.0]) == {"median": 2.0, "low": 2.0, "high": 3.0}
