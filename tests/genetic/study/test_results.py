from __future__ import annotations

import json
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from finished_study import SITES, evaluator, model

from ecad.cost import CostTable
from ecad.errors import EcadError
from ecad.genetic import Store, Study
from ecad.genetic.algorithms.surrogate_check import guesses
from ecad.genetic.evaluation.evaluator import evaluate_each
from ecad.genetic.search import search
from ecad.genetic.study.results import read_results, study_results
from ecad.sites.readers import readers


def test_a_study_is_shown_as_it_is(finished: Path) -> None:
    results, study = study_results(finished), Study.open(finished)
    front = study.front()
    assert [entry.name for entry in results.entries] == ["uncached", *(one.schedule.name for one in front)]
    assert [entry.macs for entry in results.entries] == [136, *(one.cost for one in front)]
    assert [entry.search_quality for entry in results.entries[1:]] == [one.quality for one in front]
    for entry, one in zip(results.entries[1:], front, strict=True):
        # Every prompt scores alike here, so that the interval is a point.
        assert entry.scores["synthetic"].mean == pytest.approx(one.quality)
        assert entry.scores["synthetic"].low == pytest.approx(one.quality)
    assert len(results.candidates) == len(study.candidates)
    for shown, one in zip(results.candidates, study.candidates, strict=True):
        assert (shown.generation, shown.number, shown.macs) == (one.generation, one.number, one.cost)
        assert shown.bits == np.packbits(one.recompute).tobytes()
        assert shown.forecast == one.plain.forecast
    assert {shown.forecast for shown in results.candidates} == {False, True}
    assert [generation.number for generation in results.history] == [0, 1, 2, 3]
    assert results.missing == ("No images: `ecad report FOLDER --images 6` makes some, and scores the baselines.",)
    study.close()


def test_a_second_scorer_is_shown_too(study_folder: Path) -> None:
    front = [candidate.schedule for candidate in Study.open(study_folder).front()]
    with Store.open(study_folder) as store:
        list(evaluate_each(replace(evaluator(3, seed=9), scorer="second"), front, store))
    results = study_results(study_folder)
    assert results.scorers == ["synthetic", "second"]
    for entry in results.entries[1:]:
        assert entry.scores["second"] == entry.scores["synthetic"]


def test_macs_of_a_search_by_time_are_those_beside_the_times(tmp_path: Path) -> None:
    """A model that is not registered has its MACs there; before that, its nanoseconds were called MACs."""
    times = CostTable(SITES, 1000, np.arange(1, 7), readers(SITES))
    macs = CostTable(SITES, 5, np.full(6, 3), readers(SITES))
    timed = replace(model(), price=times.price, unit="ns", forecast="either")
    search(timed, evaluator(), tmp_path, generations=2, population_size=4).close()
    tables = {"device": "x", "table": times.to_json(), "macs": macs.to_json()}
    (tmp_path / "times.json").write_text(json.dumps(tables))
    results = study_results(tmp_path)
    assert results.entries[0].macs == 6 * (5 + 18)
    for entry in results.entries:
        bits, forecast = entry.schedule.recompute, entry.schedule.forecast
        assert (entry.macs, entry.expected_ns) == (macs.price(bits, forecast), times.price(bits, forecast))
    assert [one.expected_ns for one in results.candidates] != [one.macs for one in results.candidates]
    assert not any("nanoseconds" in line for line in results.missing)
    (tmp_path / "times.json").write_text(json.dumps({"device": "x", "table": times.to_json()}))  # as it was before
    assert (
        "The MACs of this model are not known: numbers under MACs are nanoseconds." in study_results(tmp_path).missing
    )


def test_guesses_know_earlier_generations_only(finished: Path) -> None:
    study = Study.open(finished)
    found = guesses(study)
    later = [candidate for candidate in study.candidates if candidate.generation >= 2]
    assert [(guess.generation, guess.found) for guess in found] == [(one.generation, one.quality) for one in later]
    study.candidates = [one for one in study.candidates if one.generation <= 2]
    assert guesses(study) == [guess for guess in found if guess.generation == 2]
    study.settings = {**study.settings, "mode": "paper"}
    assert guesses(study) == []
    study.close()


def test_a_study_without_an_end_says_so(study_folder: Path) -> None:
    connection = sqlite3.connect(study_folder / "study.sqlite")
    connection.execute("UPDATE candidates SET quality = NULL WHERE generation = 3 AND number > 1")
    connection.execute("DELETE FROM scores WHERE item IN (SELECT id FROM items WHERE seed = 9)")
    connection.execute("DELETE FROM items WHERE seed = 9")
    connection.commit()
    connection.close()
    results = study_results(study_folder)
    assert results.missing[:2] == (
        "Generation 3 is not complete: the search is running or was stopped.",
        "No held-out scores: a search with held-out prompts writes them when it ends.",
    )
    assert results.scorers == []
    assert len(results.history) == 3


def test_a_study_without_candidates_is_a_page_too(study_folder: Path) -> None:
    connection = sqlite3.connect(study_folder / "study.sqlite")
    connection.execute("UPDATE candidates SET quality = NULL")
    connection.commit()
    connection.close()
    results = study_results(study_folder)
    assert results.missing == ("No schedule has been evaluated yet.",)
    assert [entry.name for entry in results.entries] == ["uncached"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "study.sqlite").write_bytes(b"no database" * 99), "the study is damaged"),
        (lambda folder: (folder / "study.sqlite").write_bytes(b""), "the study is empty"),
        (lambda folder: (folder / "study.sqlite").unlink(), "nothing to report: expected a study"),
        (lambda folder: shutil.rmtree(folder), "expected a folder, found nothing"),
    ],
)
def test_what_cannot_be_read_is_one_clear_line(study_folder: Path, damage, said: str) -> None:
    damage(study_folder)
    with pytest.raises(EcadError, match=said) as raised:
        read_results(study_folder)
    assert "\n" not in str(raised.value)


def test_a_study_plots_itself(finished: Path) -> None:
    study = Study.open(finished)
    figure = study.plot()
    assert len(figure.data[0].x) == len(study.candidates)
    study.close()
