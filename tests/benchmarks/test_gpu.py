"""`benchmarks/gpu.py` on tiny models: every part runs, every rival computes what it is said to, time is kept to."""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
import warnings
from pathlib import Path

import gpu_runners
import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ecad.errors import EcadWarning
from ecad.runtime.replay import fused
from ecad.schedules import CacheSchedule

isolate = pytest.importorskip("gpu_speed.isolate", reason="the installed diffusers lacks a rival")
measure, models, table, variants = (
    pytest.importorskip(f"gpu_speed.{name}") for name in ("measure", "models", "table", "variants")
)
STEPS = 4
OPTIONS = measure.Options("cpu", torch.float32, tiny=True, rounds=2, steps=STEPS, backend="eager")


@pytest.fixture(autouse=True)
def one_image_a_visit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "_SHORT", 0.0)


def loop_of(name: str, steps: int = STEPS):  # type: ignore[no-untyped-def]
    return models.make_loop(models.MODELS[name], "cpu", torch.float32, steps=steps, tiny=True)


@pytest.mark.parametrize("name", ["pixart-256", "flux-256", "wan-1.3b-33"])
def test_every_variant_computes_what_its_macs_say(name: str) -> None:
    loop, counted = loop_of(name), measure.macs_of(models.MODELS[name], tiny=True)
    flops, outputs = {}, {}
    for variant in variants.schedules(loop, counted) + variants.rivals(loop, counted):
        with variant.applied(loop), FlopCounterMode(display=False) as meter:
            outputs[variant.name] = loop()
        flops[variant.name] = meter.get_total_flops()
        schedule = variant.computes
        theoretical = counted.price(schedule.recompute, schedule.forecast) / counted.price(schedule.recompute | True)
        assert flops[variant.name] / flops["bare"] == pytest.approx(theoretical, rel=0.08), variant.name
    assert torch.equal(outputs["bare"], outputs["all ones"])
    assert torch.equal(outputs["bare"], loop()), "a rival stayed behind"
    reused = [name for name in outputs if name not in ("bare", "all ones")]
    assert not any(torch.equal(outputs["bare"], outputs[name]) for name in reused)


def test_one_part_is_measured() -> None:
    found: list[dict[str, object]] = []
    options = measure.Options(**{**vars(OPTIONS), "variants": ("all ones", "every 2", "diffusers PAB")})
    measure.run_part(measure.Part("pixart-256", 2, "eager"), options, time.monotonic() + 60, found.append)
    rows = {row["variant"]: row for row in table.rows_of(found)}
    assert list(rows) == ["bare", "all ones", "every 2", "diffusers PAB"]
    assert rows["bare"]["speed_up"] == rows["bare"]["theoretical"] == rows["all ones"]["theoretical"] == 1.0
    assert rows["every 2"]["predicted"] == rows["every 2"]["cached"] > 0
    assert rows["every 2"]["rounds"] == 2
    launches = {row["variant"]: row["launches"] for row in found if row["kind"] == "row"}
    assert launches["every 2"] < launches["all ones"] == launches["bare"]
    text = table.text_of("pixart-256/2/eager", found)
    assert "4 steps, goal 0.90" in text
    assert "last row of every 2" in text


@pytest.mark.parametrize("mode", ["blocks", "whole"])
def test_a_compiled_part_is_measured(mode: str) -> None:
    found: list[dict[str, object]] = []
    options = measure.Options(**{**vars(OPTIONS), "variants": ("every 2",), "rounds": 1})
    try:
        measure.run_part(measure.Part("pixart-256", 1, mode), options, time.monotonic() + 60, found.append)
    finally:
        torch.compiler.reset()
    assert [row["variant"] for row in table.rows_of(found)] == ["bare", "every 2"]
    assert not [finding for finding in found if finding["kind"] == "broken"]


def test_fused_rows_are_measured_beside_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "inductor", lambda module, examples: module.forward)
    found: list[dict[str, object]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error", EcadWarning)
        measure.run_part(measure.Part("pixart-256", 1, "fused"), OPTIONS, time.monotonic() + 60, found.append)
    names = ["bare", "every 2", "every 3", "every 2, fused", "every 3, fused"]
    assert [row["variant"] for row in table.rows_of(found)] == names
    assert [row["variant"] for row in found if row["kind"] == "row"] == ["bare", "every 2", "every 2, fused"]


def test_the_chain_of_a_reused_row_is_measured() -> None:
    found: list[dict[str, object]] = []
    measure.run_part(measure.Part("flux-256", 1, "chain"), OPTIONS, time.monotonic() + 60, found.append)
    assert [finding["way"] for finding in found] == ["operators", "graph", "compiled"]
    # Two double blocks add attention and feed-forward, two single blocks their projection.
    assert {finding["outputs"] for finding in found} == {6}
    assert all(finding["same_bits"] for finding in found)
    assert "6 gated sums, compiled" in table.text_of("flux-256/1/chain", found)


def test_later_rounds_are_dropped_when_time_is_short() -> None:
    found: list[dict[str, object]] = []
    options = measure.Options(**{**vars(OPTIONS), "rounds": 1000, "variants": ("every 2",)})
    begun = time.monotonic()
    measure.run_part(measure.Part("pixart-256", 1, "eager"), options, begun + 3, found.append)
    rounds = [finding["round"] for finding in found if finding["kind"] == "visit"]
    assert rounds
    assert max(rounds) < 999


def test_a_part_that_fails_leaves_the_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolate, "LEAST", 0.5)
    monkeypatch.setattr(isolate, "GRACE", 0.5)
    monkeypatch.setattr(isolate, "_context", lambda: multiprocessing.get_context("fork"))
    names = ("raises", "crashes", "works", "hangs", "comes too late")
    parts = [measure.Part(name, 1, "eager") for name in names]
    ended = {}
    for some, seconds in ((parts[:3], 60.0), (parts[3:], 1.6)):
        for part, finding in isolate.run_parts(some, OPTIONS, seconds, gpu_runners.by_model):
            ended[part.model] = finding
    assert {name: finding["kind"] for name, finding in ended.items()} == {
        "raises": "failed",
        "crashes": "failed",
        "works": "done",
        "hangs": "stopped",
        "comes too late": "left out",
    }
    assert ended["raises"]["error"] == "ValueError: no such thing"
    assert ended["crashes"]["error"] == "its process ended with exit code 7"


def test_published_schedules_are_taken_from_a_folder(tmp_path: Path) -> None:
    loop, counted = loop_of("pixart-256"), measure.macs_of(models.MODELS["pixart-256"], tiny=True)
    bits = np.random.default_rng(0).random((STEPS, len(counted.sites))) < 0.5
    CacheSchedule(bits, counted.sites, name="x").save(tmp_path / "any/pixart_alpha_256/ours_fast.json")
    found = {variant.name: variant.computes for variant in variants.schedules(loop, counted, tmp_path)}
    assert np.array_equal(found["ours_fast"].recompute, bits)
    assert "like ours_faster, 4.86x" in found


@pytest.mark.parametrize("ratio", [1.0, 2.0, 3.0])
def test_a_share_has_its_ratio(ratio: float) -> None:
    counted = measure.macs_of(models.MODELS["flux-256"], tiny=True)
    schedule = variants.share(counted, 20, ratio)
    assert counted.price(schedule.recompute | True) / counted.price(schedule.recompute) == pytest.approx(ratio, rel=0.1)


def test_the_command_writes_json_and_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu = pytest.importorskip("gpu")
    image = {"seconds": 1.0, "wall": 1.0, "processor": 1.0}
    visit = {"kind": "visit", "round": 0, "enabling": 0.0, "first": 1.5, "images": [image], "peak": 5}
    given = [
        {"kind": "variant", "variant": "bare", "theoretical": 1.0, "steps": 6},
        {**visit, "variant": "bare"},
        {"kind": "broken", "variant": "other", "error": "ValueError: no"},
        {"kind": "done"},
    ]
    asked = []

    def run_parts(parts, options, seconds):  # type: ignore[no-untyped-def]
        asked.extend(part.name for part in parts)
        yield from ((part, finding) for part in parts for finding in given)

    monkeypatch.setattr(gpu, "run_parts", run_parts)
    output = tmp_path / "gpu.json"
    flags = ["--device", "cpu", "--tiny", "--only", "pixart", "--skip", "1024", "whole", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *flags])
    gpu.main()
    modes = "1/eager", "1/blocks", "1/fused", "1/chain", "8/eager"
    assert asked == [f"pixart-256/{mode}" for mode in modes]
    written = json.loads(output.read_text())
    assert written["parts"]["pixart-256/1/eager"]["rows"][0]["first_extra"]["first round"] == 0.5
    assert written["options"]["dtype"] == "torch.float32"
    assert "broken other: ValueError: no" in capsys.readouterr().out
