"""`benchmarks/launches.py`: what is counted without numbers is what runs with them, and time follows from it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from ecad.schedules import heuristics

counting = pytest.importorskip("gpu_speed.counting", reason="the installed diffusers lacks a rival")
launches, measure, models = (
    pytest.importorskip(name) for name in ("launches", "gpu_speed.measure", "gpu_speed.models")
)
GPU = launches.Gpu(1e12 / launches.PRODUCTS, 1e9 / launches.BANDWIDTH)


@pytest.mark.parametrize("name", ["pixart-256", "flux-256", "wan-1.3b-33"])
def test_the_meta_device_shows_what_a_real_one_launches(name: str) -> None:
    table = measure.macs_of(models.MODELS[name], tiny=True)
    every_2 = heuristics.every_n(table.sites, 4, 2)
    counted = [
        counting.count_rows(models.make_loop(models.MODELS[name], device, torch.float32, tiny=True), every_2)
        for device in ("meta", "cpu")
    ]
    assert counted[0] == counted[1]
    computed, reused = counted[0].rows[2:]
    assert 0 < len(reused) < len(computed) / 3
    everything = table.fixed_per_step + int(table.per_site.sum())
    assert sum(kernel.flops for kernel in computed) == pytest.approx(2 * everything, rel=0.01)


def test_a_row_takes_as_long_as_its_slower_half() -> None:
    busy = [counting.Kernel("mm", 0, int(3e9)), counting.Kernel("add", int(2e6))]
    assert launches.row_seconds(busy, GPU) == pytest.approx(5e-3)
    short = [counting.Kernel("add", 8)] * 100
    assert launches.row_seconds(short, GPU) == pytest.approx(100 * launches.LAUNCH)
    assert launches.row_seconds(short, GPU, "fused") == pytest.approx(100 * launches.LAUNCH + launches.CALL)
    in_a_graph = launches.SHORTEST + launches.IN_A_GRAPH
    assert launches.row_seconds(short, GPU, "graph") == pytest.approx(100 * in_a_graph)


def test_the_share_kept_is_that_of_the_time() -> None:
    table = measure.macs_of(models.MODELS["pixart-256"], tiny=True)
    free = launches.fraction_of_theoretical(
        2, 4, 1.0, float(table.fixed_per_step / (table.fixed_per_step + table.per_site.sum())), table
    )
    assert free == pytest.approx(1.0, rel=1e-3)
    assert launches.fraction_of_theoretical(2, 4, 1.0, 1.0, table) < 0.6


def test_the_command_writes_json_and_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [
        "--tiny",
        "--models",
        "pixart-256",
        "--batches",
        "1",
        "--gpus",
        "H100",
        "--output",
        str(tmp_path / "x.json"),
    ]
    monkeypatch.setattr(sys, "argv", ["launches.py", *flags])
    launches.main()
    (row,) = json.loads((tmp_path / "x.json").read_text())["models"]
    # Two blocks' ten gates and sums, and one of the last norm's scale, are one kernel.
    assert row["rows"]["reused, fused"]["launches"] == row["rows"]["reused"]["launches"] - 10
    assert row["rows"]["reused"]["launches"] < row["rows"]["reused, plain hooks"]["launches"]
    fraction = {way: found["every 2"] for way, found in row["H100"]["fraction"].items()}
    # Of two blocks, the call of a compiled row takes longer than the launches that it saves.
    assert fraction["plain hooks"] < fraction["fused"] < fraction["eager"] < fraction["graph"]
    assert "bound by launches" in capsys.readouterr().out
