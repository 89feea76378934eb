"""`compute_macs.py`: the published integers, and files that keep all else."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from pathlib import Path

import pytest

from ecad.errors import ScheduleError
from ecad.schedules import CacheSchedule, flux_sites, heuristics, pixart_sites
from ecad.schedules.files import update_metrics

ALPHA = "PixArtAlphaImageGenerator"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "schedules"
    for name, n in (("every-1", 1), ("below/every-3", 3)):
        schedule = heuristics.every_n(pixart_sites(28), 20, n)
        schedule.replace(config={"height": 256}, metrics={"mine": [1, {"two": 3}]}).save(folder / f"{name}.json")
    return folder


def metrics(file: Path) -> dict:
    return json.loads(file.read_text())["metrics"]


def test_the_published_counts_are_written_and_all_else_stays(script, folder: Path) -> None:
    before = {file: json.loads(file.read_text()) for file in folder.rglob("*.json")}
    code, out, _ = script("compute_macs", "--image-generator", ALPHA, "-i", folder, "--accounting", "linear", "--json")
    assert code == 0
    rows = {Path(row["file"]).stem: row for row in json.loads(out)["schedules"]}
    # What the paper's release gives for no cache and for recomputing all at every third step.
    assert {name: row["total_macs"] for name, row in rows.items()} == {
        "every-1": 5_713_796_136_960,
        "every-3": 2_019_308_470_272,
    }
    assert rows["every-3"]["uncached_macs"] == 5_713_796_136_960
    for file, old in before.items():
        new = json.loads(file.read_text())
        assert new["metrics"].pop("mine") == old["metrics"]["mine"]
        steps = [step["macs"] for step in new["metrics"]["by_inference_step"].values()]
        assert list(new["metrics"]["by_inference_step"]) == [f"{step:03d}" for step in range(20)]
        assert sum(steps) == new["metrics"]["total_macs"] == rows[file.stem]["total_macs"]
        assert new["metrics"]["total_flops"] == 2 * sum(steps)
        assert new["metrics"]["total_macs_T"] == sum(steps) / 1e12
        assert {**new, "metrics": 0} == {**old, "metrics": 0}


def test_a_count_that_is_there_stays_until_told_otherwise(script, folder: Path) -> None:
    file = folder / "every-1.json"
    command = ("compute_macs", "--image-generator", ALPHA, "--input-dir", file)
    assert script(*command, "--accounting", "linear")[0] == 0
    written = file.read_bytes()
    code, out, _ = script(*command)
    assert code == 0
    assert "the file keeps its 5.7138 T (--recompute-existing replaces it)" in out
    assert file.read_bytes() == written
    assert script(*command, "--recompute-existing")[0] == 0
    assert metrics(file)["accounting"] == "full"
    assert metrics(file)["total_macs"] > 5_713_796_136_960


def test_schedules_of_another_model_are_left_out(script, fails, folder: Path) -> None:
    other = folder / "flux.json"
    heuristics.none(flux_sites(2, 1), 20).save(other)
    before = other.read_bytes()
    code, out, err = script("compute_macs", "--image-generator", ALPHA, "-i", folder, "--json")
    assert code == 0
    result = json.loads(out)
    assert [Path(row["file"]).name for row in result["schedules"]] == ["every-3.json", "every-1.json"]
    (reason,) = result["left_out"].values()
    assert err == f"{other}: left out: {reason}\n"
    assert other.read_bytes() == before
    assert fails("compute_macs", "--image-generator", ALPHA, "-i", other) == f"ecad: {other}: {reason}"


def test_details_add_up_to_the_total(script, folder: Path) -> None:
    command = ("compute_macs", "--image-generator", ALPHA, "-i", folder / "below", "--print-detailed")
    code, out, _ = script(*command, "--json")
    assert code == 0
    result = json.loads(out)
    (detail,) = result["by_component"].values()
    assert list(detail) == ["attn1", "attn2", "ff", "outside the blocks"]
    assert sum(map(sum, detail.values())) == result["schedules"][0]["total_macs"]
    assert [step for step, macs in enumerate(detail["ff"]) if macs] == list(range(0, 20, 3))
    code, out, _ = script(*command)
    assert code == 0
    assert all(word in out for word in ("attn1", "outside", "019", "all"))


def test_published_files_are_counted_as_published(script, shared_data: Path, tmp_path: Path) -> None:
    for name, generator, images in (("pixart_alpha_tgate", ALPHA, 1), ("flux_every_n", "FluxImageGenerator", 2)):
        source = min((shared_data / "published-schedules" / name).glob("*.json"))
        file = Path(shutil.copy(source, tmp_path / f"{name}.json"))
        published = metrics(file)
        options = ("--accounting", "linear", "--recompute-existing")
        assert script("compute_macs", "--image-generator", generator, "-i", file, *options)[0] == 0
        now = metrics(file)
        # Their FLUX files count two images.
        assert images * now["total_macs"] == published["total_macs"]
        for step, counts in published["by_inference_step"].items():
            assert images * now["by_inference_step"][step]["macs"] == counts["macs"]
        assert set(published) <= set(now)
        assert now.get("latency") == published.get("latency")


def _write(file: Path, key: str) -> None:
    for value in range(15):
        update_metrics(file, CacheSchedule.load(file), {f"{key}{value}": value})


def test_two_processes_do_not_lose_each_others_metrics(folder: Path) -> None:
    file = folder / "every-1.json"
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_write, args=(file, key)) for key in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert set(metrics(file)) == {"mine"} | {f"{key}{value}" for key in "ab" for value in range(15)}


def test_metrics_of_another_schedule_are_not_written(folder: Path) -> None:
    measured = CacheSchedule.load(folder / "below" / "every-3.json")
    with pytest.raises(ScheduleError, match=r"every-1\.json: the schedule changed while it was measured"):
        update_metrics(folder / "every-1.json", measured, {"total_macs": 1})


def test_mistakes(fails, folder: Path) -> None:
    broken = folder / "broken.json"
    broken.write_text("{")
    before = {file: file.read_bytes() for file in folder.rglob("*.json")}
    for arguments, told in (
        (("--image-generator", "Nope", "-i", folder), "'Nope' is unknown"),
        (("--image-generator", ALPHA, "-i", folder), "broken.json"),
        (("--image-generator", ALPHA, "-i", "missing"), "missing"),
        (("--image-generator", ALPHA, "-i", folder / "every-1.json", "--accounting", "half"), "'half' is unknown"),
        (
            ("--image-generator", "FluxImageGenerator", "-i", folder / "every-1.json"),
            "every-1.json: schedule 'every_1' does not fit",
        ),
        (("--image-generator", ALPHA, "-i", folder / "every-1.json", "--height", 100), "100"),
        (("--image-generator", ALPHA), "--input-dir"),
    ):
        assert told in fails("compute_macs", *arguments)
    # Not one file of the folder with a broken one in it was touched.
    assert {file: file.read_bytes() for file in folder.rglob("*.json")} == before
