from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ecad.genetic import Study
from ecad.genetic.evaluation.image_evaluator import evaluator_of
from ecad.genetic.evaluation.problems import latency_problem, problem_of
from ecad.genetic.search import search
from ecad.genetic.study.layout import MEASURED, TIMES
from ecad.genetic.study.results import study_results
from ecad.image_generators import get_image_generator
from ecad.prompts import Prompt
from ecad.report.summary import packed

Run = Callable[..., tuple[int, str, str]]


def test_a_study_is_reported(run: Run, study_folder: Path) -> None:
    code, out, told = run("report", study_folder, "--json")
    assert code == 0
    written = [Path(file).relative_to(study_folder).as_posix() for file in json.loads(out)["files"]]
    assert written[:4] == ["report.html", "front.png", "front.svg", "table.md"]
    assert "No images: " in told


def test_a_study_is_told_in_the_terminal(run: Run, study_folder: Path) -> None:
    before = sorted(study_folder.rglob("*"))
    code, out, _ = run("report", study_folder, "--text")
    assert code == 0
    assert "gen_000_cand_0" in out
    assert "synthetic, held-out prompts" in out
    assert sorted(study_folder.rglob("*")) == before


def test_folders_of_images_are_reported(run: Run, images: Path) -> None:
    code, out, _ = run("report", images)
    assert (code, out.split()[0]) == (0, "page:")
    assert (images / "report.html").stat().st_size > 1000
    assert run("report", images, "--text")[0] == 2


@pytest.mark.parametrize("there", ["nothing", "an empty folder", "a torn study"])
def test_what_is_no_study_is_one_line(run: Run, tmp_path: Path, there: str) -> None:
    place = tmp_path / "here"
    if there != "nothing":
        place.mkdir()
    if there == "a torn study":
        (place / "study.sqlite").write_bytes(b"SQLite format 3\0" + bytes(999))
    code, out, told = run("report", place)
    assert (code, out) == (2, "")
    *before, told = told.splitlines()
    assert told.startswith(f"ecad: {place}: ")
    assert before == ([] if there == "nothing" else [f"loading {place}"])


@pytest.mark.usefixtures("few_steps")
def test_images_are_made_of_a_study_that_has_none(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ecad.genetic.illustrate.TIMED_ROUNDS", 1)
    generator = get_image_generator("EmojiImageGenerator", device="cpu")
    folder = tmp_path / "study"
    seen = [Prompt("0", "a fox"), Prompt("1", "a red apple")]
    made = evaluator_of(generator, seen, [0], "psnr", 2)
    search(problem_of(generator), made, folder, mode="paper", generations=1, population_size=2, seed=0).close()
    assert run("report", folder, "--images", "2")[0] == 0
    results = study_results(folder)
    kept = {(folder / path): (folder / path).stat().st_mtime_ns for entry in results.entries for path in entry.images}
    assert len(kept) == 2 * len(results.entries)
    assert [picture.prompt for picture in results.pictures] == ["a fox", "a red apple"]
    assert all(entry.search_quality is not None for entry in results.entries if entry.kind == "baseline")
    study = Study.open(folder)
    assert study.held_out == ()
    study.close()
    assert all(entry.time_ratio is not None for entry in results.entries)
    measured = (folder / MEASURED).read_bytes()
    # Again, and nothing is made or measured again.
    assert run("report", folder, "--images", "2")[0] == 0
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert (folder / MEASURED).read_bytes() == measured
    (folder / MEASURED).write_text('{"device": "none", "speedups": {"every-2": "fast"}}')
    code, _, told = run("report", folder)
    assert (code, told.splitlines()[0], told.count("\n")) == (2, f"loading {folder}", 2)
    assert str(folder / MEASURED) in told
    (folder / MEASURED).write_bytes(measured)
    code, _, told = run("report", folder, "--images", "2", "--weights", tmp_path / "elsewhere")
    assert code == 2
    assert (told.splitlines()[0], told.count("\n")) == (f"loading {folder}", 2)


@pytest.mark.usefixtures("few_steps")
def test_a_search_by_time_prices_everything_it_shows(tmp_path: Path) -> None:
    generator = get_image_generator("EmojiImageGenerator", device="cpu")
    folder, seen = tmp_path / "study", [Prompt("0", "a fox")]
    folder.mkdir()
    problem = latency_problem(generator, seen, folder / TIMES)
    search(
        problem, evaluator_of(generator, seen, [0], "psnr", 1), folder, mode="paper", generations=1, population_size=2
    ).close()
    results, study = study_results(folder), Study.open(folder)
    assert [one.expected_ns for one in results.candidates] == [one.cost for one in study.candidates]
    for entry in results.entries:
        assert entry.expected_ns == problem.costs(entry.schedule.recompute[None])[0]
    assert {entry.kind for entry in results.entries} == {"uncached", "baseline", "found"}
    # What is kept, too, of all of them.
    kept = {one.bits: one.kept_bytes for one in results.candidates}
    for entry in results.entries:
        assert entry.kept_bytes == kept.get(packed(entry.schedule.recompute), entry.kept_bytes) is not None
    study.close()
