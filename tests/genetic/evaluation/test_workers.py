"""Searches whose images are made by several processes: the same study, whatever happens to them."""

from __future__ import annotations

import signal
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import synthetic
import synthetic_worker
from led_search import Led, search_on_workers

from ecad.errors import EcadError
from ecad.genetic import Candidate, Study
from ecad.genetic.search import search

pytestmark = pytest.mark.usefixtures("few_offspring")


@pytest.fixture(scope="module")
def serial(few_offspring: None, tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("serial")
    return search(synthetic.problem(), synthetic.evaluator(), folder, generations=4, population_size=6)


def bits(candidate: Candidate) -> str:
    return np.packbits(candidate.recompute).tobytes().hex()


def failures(folder: Path) -> list[tuple[object, ...]]:
    with sqlite3.connect(folder / "study.sqlite") as database:
        return database.execute("SELECT * FROM failures ORDER BY 1, 2").fetchall()


def killed_after(candidates: int, folder: Path, options: dict[str, object]) -> None:
    """Search until so many candidates are done, then kill the driver."""
    driver = Led(search_on_workers, folder, options)
    for _ in range(candidates):
        assert driver.arrives()
    assert driver.kill() == -signal.SIGKILL


def test_workers_leave_the_study_that_one_process_leaves(serial: Study, tmp_path: Path) -> None:
    folder = Path(serial._store.name)
    late = {bits(serial.candidates[0]): 0.3, bits(serial.candidates[3]): 0.1}
    study, summary = synthetic_worker.run(tmp_path, late)
    assert synthetic.content(tmp_path) == synthetic.content(folder)
    assert study.failures == {}
    assert sum(row["tasks"] for row in summary) * 6 == 2 * study.history[-1].images


def test_workers_are_told_which_schedules_forecast(tmp_path: Path) -> None:
    either = replace(synthetic.problem(), forecast="either")
    alone = search(either, synthetic.evaluator(), tmp_path / "alone", generations=3, population_size=6)
    study, _ = synthetic_worker.run(tmp_path / "pooled", {}, forecast="either", generations=3)
    assert any(candidate.schedule.output_products is not None for candidate in study.candidates)
    assert {candidate.schedule.forecast for candidate in alone.candidates} == {False, True}
    assert synthetic.content(tmp_path / "pooled") == synthetic.content(tmp_path / "alone")


def test_a_poisoned_candidate_is_set_aside_and_a_killed_search_goes_on_alike(serial: Study, tmp_path: Path) -> None:
    poisoned = {bits(serial.candidates[2]): 0.0}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    study, summary = synthetic_worker.run(whole, poisoned)
    [(name, reason)] = study.failures.items()
    assert name == "gen_000_cand_002"
    assert reason == "expected images, found values that are no finite numbers"
    assert [row[2] for row in failures(whole)] == [3] * 6
    assert sum(row["failed"] for row in summary) == 2 * 3
    assert not (whole / "gen_000/candidates/cand_002.json").exists()
    assert "NotFiniteError" in (whole / "failures.log").read_text()
    assert [generation.number for generation in study.history] == [0, 1, 2, 3]
    killed_after(5, broken, {"faults": poisoned})
    killed_after(4, broken, {"faults": poisoned})
    synthetic_worker.run(broken, poisoned)
    assert synthetic.content(broken) == synthetic.content(whole)
    assert failures(broken) == failures(whole)


def test_an_asynchronous_search_does_not_wait_and_counts_each_image_once(serial: Study, tmp_path: Path) -> None:
    slow = {bits(candidate): 1.0 for candidate in serial.candidates[6:8]}
    options: dict[str, object] = {"faults": slow, "asynchronous": True}
    killed_after(9, tmp_path, options)
    synthetic_worker.run(tmp_path, slow, asynchronous=True)
    study = Study.open(tmp_path)
    scored = np.concatenate([study.scores(candidate) for candidate in study.candidates])
    assert np.isfinite(scored).all()
    assert len(study.history) == 4
    images = 6 * len({study.scores(candidate).tobytes() for candidate in study.candidates})
    assert study.history[-1].images == images == len(scored)
    plans = synthetic.problem().plans(np.array([candidate.recompute for candidate in study.candidates]))
    assert len({plan.tobytes() for plan in plans}) == len(plans)
    truth = synthetic.quality(plans)
    assert np.argsort(truth).tolist() == np.argsort([candidate.quality for candidate in study.candidates]).tolist()
    with pytest.raises(EcadError, match="the study has other settings: asynchronous: expected true, found nothing"):
        search(synthetic.problem(), synthetic.evaluator(), tmp_path, generations=4, population_size=6)


def test_an_asynchronous_search_needs_no_workers(tmp_path: Path) -> None:
    evaluator, problem = synthetic.evaluator(decibels=True), synthetic.problem()
    study = search(problem, evaluator, tmp_path, generations=4, population_size=6, asynchronous=True)
    plain = search(problem, evaluator, generations=4, population_size=6)
    assert [candidate.cost for candidate in study.candidates] == [candidate.cost for candidate in plain.candidates]


def test_mode_paper_is_not_asynchronous() -> None:
    with pytest.raises(EcadError, match=r"^`mode` paper works in generations: use `mode` fast"):
        search(synthetic.problem(), synthetic.evaluator(), mode="paper", generations=1, asynchronous=True)
