"""`compute_latency.py`: what it measures and what it leaves in the files; never how fast anything is."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import numpy as np
import pytest

from ecad.cost.architectures import find_architecture
from ecad.cost.macs import macs_table
from ecad.schedules import CacheSchedule, heuristics, pixart_sites

EMOJI = ("--image-generator", "EmojiImageGenerator")


@pytest.fixture
def files(script, tmp_path: Path) -> list[Path]:
    """Two schedules of two steps, and embeddings of two prompts in `e`."""
    sites = macs_table(find_architecture("EmojiImageGenerator")).sites
    found = []
    for n in (1, 2):
        found.append(tmp_path / "schedules" / f"every-{n}.json")
        heuristics.every_n(sites, 2, n).replace(metrics={"mine": 1}).save(found[-1])
    Path("prompts.txt").write_text("a 3d crab on a blue background\na twitter owl on a red background\n")
    assert script("generate_embeddings", *EMOJI, "-f", "prompts.txt", "-o", "e")[0] == 0
    return found


def metrics(file: Path) -> dict:
    return json.loads(file.read_text())["metrics"]


def test_times_are_written_in_the_published_format_with_the_uncached_ones_beside_them(script, files) -> None:
    command = ("compute_latency", *EMOJI, "-i", "e", "--schedule-list", *files, "-b", 3, "-w", 1, "-n", 2)
    code, out, _ = script(*command, "--json")
    assert code == 0
    rows = {Path(row["file"]): row for row in json.loads(out)["schedules"]}
    assert list(rows) == files
    for file in files:
        found = metrics(file)
        latency = found["latency"]
        assert found["mine"] == 1
        assert "latency_by_batch_size" not in found
        assert (latency["batch_size"], latency["num_samples"], latency["warmup_steps"]) == (3, 2, 1)
        assert (len(latency["latencies"]), len(latency["warmups"]), len(latency["uncached_latencies"])) == (2, 1, 2)
        assert latency["avg"] == statistics.fmean(latency["latencies"])
        assert latency["median"] == statistics.median(latency["latencies"])
        ratios = np.array(latency["uncached_latencies"]) / np.array(latency["latencies"])
        assert latency["speedup"] == pytest.approx(np.median(ratios))
        assert min(latency["latencies"]) <= latency["middle_half"][0] <= latency["middle_half"][1]
        facts = {"file": 0, "written": 0, "elsewhere": []}
        assert {**rows[file], "file": 0, "written": 0} == {**latency, **facts}
    written = [file.read_bytes() for file in files]
    code, out, _ = script(*command)
    assert code == 0
    assert out.count("read from the file (--recompute-existing measures again)") == 2
    assert [file.read_bytes() for file in files] == written
    elsewhere = {"gpu": "another", "image_generator": "OtherImageGenerator"}
    other = CacheSchedule.load(files[0])
    other.replace(metrics={**other.metrics, "latency": {**latency, **elsewhere}}).save(files[0])
    code, out, _ = script(*command)
    assert code == 0
    assert (
        out.count("read from the file, measured with another gpu and image_generator than here (--recompute-existing")
        == 1
    )


def test_several_batch_sizes(script, files) -> None:
    other = files[0].with_name("other.json")
    heuristics.none(pixart_sites(2), 2).save(other)
    command = ("compute_latency", *EMOJI, "--embedding-dir", "e", "--schedule-dir", files[0].parent, "-w", 0, "-n", 1)
    code, _, err = script(*command, "-b", 2)
    assert code == 0
    assert f"{other}: left out: schedule " in err
    assert metrics(other) == {}
    other.unlink()
    first = metrics(files[0])["latency"]
    assert script(*command, "--batch-size", 1, "--batch-size", 2)[0] == 0
    for file in files:
        found = metrics(file)
        assert sorted(found["latency_by_batch_size"]) == ["1", "2"]
        assert found["latency"] == found["latency_by_batch_size"]["1"]
        assert all(int(size) == row["batch_size"] for size, row in found["latency_by_batch_size"].items())
    assert metrics(files[0])["latency_by_batch_size"]["2"] == first
    assert CacheSchedule.load(files[0]).num_steps == 2


def test_mistakes(fails, files) -> None:
    known = (*EMOJI, "-i", "e", "-b", 1, "-n", 1)
    before = [file.read_bytes() for file in files]
    Path("empty").mkdir()
    for arguments, told in (
        (known, "either --schedule-dir or --schedule-list"),
        ((*known, "-d", files[0].parent, "--schedule-list", files[0]), "either --schedule-dir or --schedule-list"),
        ((*known, "-d", "empty"), "empty"),
        ((*known, "--schedule-list", files[0], "missing.json"), "missing.json"),
        ((*EMOJI, "-i", "empty", "-d", files[0]), "empty: no embeddings"),
        (
            (*known, "-d", files[0], "--device", "nose"),
            "'--device': expected auto, cpu, cuda, cuda:N or mps, found 'nose'",
        ),
        ((*known, "-d", files[0], "-b", 0), "--batch-size"),
    ):
        assert told in fails("compute_latency", *arguments)
    assert [file.read_bytes() for file in files] == before
