from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing

import numpy as np
import pytest
from synthetic import evaluator, problem

from ecad.errors import EcadError
from ecad.genetic import Store, Study
from ecad.genetic.search import search
from ecad.utils.pareto import hypervolume


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished study of three generations, of four and twice six."""
    path = tmp_path_factory.mktemp("study")
    search(problem(), evaluator(), path, generations=3, population_size=6)
    return path


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def test_a_study_holds_what_was_searched(folder):
    study = Study.open(folder)
    assert study.settings["mode"] == "fast"
    assert study.settings["population_size"] == 6
    assert study.uncached_cost == problem().uncached_cost
    assert set(study.versions) == {"diffusers", "ecad", "numpy", "pymoo", "python", "torch"}
    assert [(c.generation, c.number) for c in study.candidates] == [(g, n) for g in range(3) for n in range(6)]
    assert [(item.prompt.text, item.seed) for item in study.items[2:4]] == [("prompt 0", 2), ("prompt 1", 0)]
    for candidate in study.candidates:
        scores = study.scores(candidate)
        assert scores.shape == (6,)
        assert scores.mean() == candidate.quality
        assert candidate.cost == problem().costs(candidate.recompute[None])[0]
        assert candidate.schedule.name == f"gen_{candidate.generation:03d}_cand_{candidate.number:03d}"


def test_the_front_is_over_everything_evaluated(folder):
    study = Study.open(folder)
    front = study.front()
    assert [c.cost for c in front] == sorted({c.cost for c in front})
    assert [c.quality for c in front] == sorted({c.quality for c in front})
    for candidate in study.candidates:
        better = [c for c in front if c.cost <= candidate.cost and c.quality >= candidate.quality]
        assert better
        assert candidate not in front or better == [candidate]


@pytest.mark.parametrize("mode", ["fast", "paper"])
def test_history_grows(mode):
    study = search(problem(), evaluator(), mode=mode, generations=3, population_size=6)
    assert [generation.number for generation in study.history] == [0, 1, 2]
    assert mode == "paper" or [generation.images for generation in study.history] == [36, 72, 108]
    worst = min(c.quality for c in study.candidates if c.generation == 0)
    for generation in study.history:
        known = [c for c in study.candidates if c.generation <= generation.number]
        cost, quality = np.array([c.cost for c in known]), np.array([c.quality for c in known])
        assert generation.hypervolume == pytest.approx(
            hypervolume(cost, quality, study.uncached_cost, worst), rel=1e-12
        )
    areas = [generation.hypervolume for generation in study.history]
    assert areas == sorted(areas)
    assert study.history[-1].front_size == len(study.front())
    seconds = [generation.seconds for generation in study.history]
    assert 0 < seconds[0] < seconds[1] < seconds[2]


def test_an_unfinished_generation_counts_for_the_front_but_not_for_history(copy):
    with Store.open(copy) as store:
        rows = store.candidates()
    database = sqlite3.connect(copy / "study.sqlite")
    database.execute("UPDATE candidates SET quality = NULL WHERE generation = 2 AND number > 1")
    database.commit()
    database.close()
    study = Study.open(copy)
    assert len(rows) == 18
    assert len(study.candidates) == 14
    assert [generation.number for generation in study.history] == [0, 1]


def test_a_study_that_has_only_begun_has_an_empty_front(tmp_path):
    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(problem(), evaluator(generate=stop), tmp_path, generations=1, population_size=6)
    study = Study.open(tmp_path)
    assert (study.candidates, study.front(), study.history) == ([], [], [])
    assert study.settings["mode"] == "fast"


def test_no_study_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(EcadError, match=r"no study here: expected a file study\.sqlite, found none; run a search"):
            Study.open(folder)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [lambda path: (path / "study.sqlite").touch(), lambda path: Store.open(path).close()])
def test_a_study_without_settings_is_refused(tmp_path, make):
    make(tmp_path)
    with pytest.raises(EcadError, match="the study is empty: its search was stopped before it began; run it again"):
        Study.open(tmp_path)
    search(problem(), evaluator(), tmp_path, generations=1, population_size=6)
    assert len(Study.open(tmp_path).candidates) == 6


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM settings WHERE name = 'sites'",
        "UPDATE settings SET value = '7' WHERE name = 'sites'",
        'UPDATE settings SET value = \'[["0", "attn1"], ["0", "attn1"]]\' WHERE name = \'sites\'',
        "UPDATE settings SET value = '{' WHERE name = 'steps'",
        "UPDATE settings SET value = '1000' WHERE name = 'steps'",
        "UPDATE candidates SET quality = 'good'",
        "UPDATE candidates SET cost = 'cheap'",
        "DELETE FROM generations",
        "DROP TABLE candidates",
    ],
)
def test_a_study_with_nonsense_in_it_is_refused(copy, damage):
    database = sqlite3.connect(copy / "study.sqlite")
    database.execute(damage)
    database.commit()
    database.close()
    with pytest.raises(EcadError, match=r"the study (is damaged|cannot be used): study\.sqlite: .") as caught:
        Study.open(copy)
    assert "\n" not in str(caught.value)


def test_broken_bytes_are_an_error_or_do_no_harm(copy):
    """A flipped byte may sit where nobody looks; it never ends in anything but an EcadError of one line."""
    path = copy / "study.sqlite"
    intact = path.read_bytes()
    random = np.random.default_rng(0)
    refused = []
    for _ in range(150):
        broken = bytearray(intact)
        start = random.integers(len(broken))
        length = int(random.choice([1, 16, 4096]))
        broken[start : start + length] = random.bytes(len(broken[start : start + length]))
        path.write_bytes(broken if random.random() < 0.8 else broken[:start])
        refused += [refusal(look_at, copy), refusal(lambda folder: Store.open(folder).close(), copy)]
    messages = [message for message in refused if message is not None]
    assert len(messages) > 30
    assert not any("\n" in message for message in messages)


def refusal(act, folder):
    try:
        return act(folder)
    except EcadError as error:
        return str(error)


def look_at(folder):
    with closing(Study.open(folder)) as study:
        study.front()
        for candidate in study.candidates:
            study.scores(candidate)
