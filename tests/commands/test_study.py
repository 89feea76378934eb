"""`ecad study ...` as a user types it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ecad.genetic import Study

Run = Callable[..., tuple[int, str, str]]


def test_studies_below_a_folder_are_listed(run: Run, study_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/study.sqlite").write_bytes(b"no database, however long it may be")
    code, out, said = run("study", "ls", tmp_path, "--json")
    assert code == 0
    [row] = json.loads(out)["studies"]
    study = Study.open(study_folder)
    assert row["folder"] == str(study_folder)
    assert (row["candidates"], row["generations"]) == (len(study.candidates), len(study.history))
    cheap = [one.quality for one in study.candidates if 2 * one.cost <= study.uncached_cost]
    assert row["best_at_2x"] == max(cheap, default=None)
    assert f"left out: {tmp_path / 'broken'}: " in said
    code, out, _ = run("study", "ls", tmp_path)
    assert out.startswith(f"{study_folder}: a custom model, 6 rows, mode fast: ")
    assert out.count("\n") == 1


def test_a_folder_without_studies(run: Run, tmp_path: Path) -> None:
    assert run("study", "ls") == (0, ".: no studies\n", "")
    code, _, said = run("study", "ls", "nowhere")
    assert (code, said) == (2, "ecad: nowhere: there is no such folder\n")


def test_a_study_is_exported_as_a_table(run: Run, study_folder: Path) -> None:
    study = Study.open(study_folder)
    code, out, _ = run("study", "export", "csv", study_folder)
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["name"] for row in rows] == [one.name for one in study.candidates]
    assert [float(row["synthetic"]) for row in rows] == [one.quality for one in study.candidates]
    assert {row["name"] for row in rows if row["front"] == "True"} == {one.name for one in study.front()}
    assert run("study", "export", "json", study_folder, "-o", "out.json")[:2] == (0, "")
    document = json.loads(Path("out.json").read_text())
    assert [row["macs"] for row in document["candidates"]] == [one.cost for one in study.candidates]
    assert document["settings"]["seed"] == study.settings["seed"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("export", "xml", "study"), "expected csv or json, found 'xml'"),
        (("export", "csv", "nowhere"), "nowhere: no study here"),
        (
            ("probes", "study"),
            "has not probed its steps, with which only some searches begin: let --components be probed",
        ),
    ],
)
def test_a_mistake_is_one_line(run: Run, study_folder: Path, arguments: tuple[str, ...], told: str) -> None:
    code, out, said = run("study", *arguments)
    assert (code, out, said.count("\n")) == (2, "", 1)
    assert told in said
