"""Searches that are stopped, killed, timed or continued: they end as one that ran through."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from led_search import Led, search_in_batches
from synthetic import content, evaluator, problem

from ecad.errors import EcadError
from ecad.genetic import Study
from ecad.genetic.run import Progress
from ecad.genetic.search import search
from ecad.genetic.study.items import all_items

pytestmark = pytest.mark.usefixtures("few_offspring")
SMALL = {"generations": 5, "population_size": 6}
SIZES = [6, 6, 6, 6, 6]  # mode fast begins with what is promising: six of five steps


class Stop(BaseException):
    """Stands for Ctrl-C, which is no Exception either."""


def interrupted(after: int):
    """An evaluator that is stopped after some batches."""
    plain, made = evaluator(), []

    def generate(schedule, items):
        if len(made) == after:
            raise Stop
        made.append(items)
        return plain.generate(schedule, items)

    return evaluator(generate=generate)


@pytest.mark.parametrize("mode", ["paper", "fast"])
def test_stopped_anywhere_and_resumed_it_ends_the_same(tmp_path, mode):
    search(problem(), evaluator(), tmp_path / "whole", mode=mode, **SMALL)
    expected = content(tmp_path / "whole")
    for after in range(1, 44, 7):
        folder = tmp_path / f"{after}"
        with pytest.raises(Stop):
            search(problem(), interrupted(after), folder, mode=mode, **SMALL)
        assert len(Study.open(folder).candidates) == after // 2 or mode == "paper"  # of two batches each
        seen: list[Progress] = []
        study = search(problem(), evaluator(), folder, mode=mode, on_progress=seen.append, **SMALL)
        assert content(folder) == expected
        assert seen[-1].evaluated == len(study.candidates)
        assert study.history[-1].images == sum(images for *_, images in expected["generations"])


@pytest.mark.parametrize("mode", ["paper", "fast"])
def test_killed_at_any_moment_and_resumed_it_ends_the_same(tmp_path, mode):
    search(problem(), evaluator(), tmp_path / "whole", mode=mode, **SMALL)
    moments, folder = random.Random(mode), tmp_path / "killed"
    kills, done = 0, False
    while not done:
        process = start(folder, mode)
        for _ in range(moments.randint(1, 10)):
            if done := not process.arrives():
                break
            process.proceed()
        if done:
            assert process.join() == 0
        else:
            # It makes one batch, scores it, keeps it, and stops at the next: this falls anywhere on that way.
            time.sleep(moments.uniform(0, 0.01))
            assert process.kill() == -signal.SIGKILL
            kills += 1
        if kills % 3 == 0:
            Study.open(folder).close()
    assert kills >= 4
    assert content(folder) == content(tmp_path / "whole")


def start(folder: Path, mode: str = "fast") -> Led:
    """A search in a process of its own that stops before each batch."""
    return Led(search_in_batches, folder, mode, SMALL["generations"])


def test_two_processes_do_not_search_one_study(tmp_path):
    other = start(tmp_path)
    try:
        assert other.arrives()
        with pytest.raises(EcadError, match="another process is searching this study") as caught:
            search(problem(), evaluator(), tmp_path, **SMALL)
        assert "\n" not in str(caught.value)
        assert Study.open(tmp_path).candidates == []
    finally:
        other.kill()
    search(problem(), evaluator(), tmp_path, **SMALL)  # what is killed lets go
    assert len(Study.open(tmp_path).candidates) == sum(SIZES)


def test_more_generations_go_on_where_fewer_ended(tmp_path):
    search(problem(), evaluator(), tmp_path / "whole", **SMALL)
    for generations in (1, 3, 2, 5):
        study = search(problem(), evaluator(), tmp_path / "parts", generations=generations, population_size=6)
    assert content(tmp_path / "parts") == content(tmp_path / "whole")
    assert len(study.history) == 5


def test_time_ends_a_search_and_more_time_goes_on(tmp_path, monkeypatch):
    search(problem(), evaluator(), tmp_path / "whole", **SMALL)
    now = [0.0]
    monkeypatch.setattr("ecad.genetic.run.time.monotonic", lambda: now[0])
    plain, made = evaluator(), []

    def generate(schedule, items):
        now[0] += 1.0
        made.append(items)
        return plain.generate(schedule, items)

    timed = evaluator(generate=generate)
    study = search(problem(), timed, tmp_path / "timed", max_seconds=17, population_size=6)
    assert len(study.candidates) == 9  # of two seconds each; the ninth began in time
    assert [generation.seconds for generation in study.history] == [12.0]
    search(problem(), timed, tmp_path / "timed", max_seconds=17, population_size=6)
    assert len(made) == 18
    search(problem(), timed, tmp_path / "timed", max_seconds=1000, **SMALL)
    assert content(tmp_path / "timed") == content(tmp_path / "whole")


def test_progress_counts_and_estimates(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("ecad.genetic.run.time.monotonic", lambda: now[0])
    plain, seen = evaluator(), []

    def generate(schedule, items):
        now[0] += 1.0
        return plain.generate(schedule, items)

    timed = evaluator(generate=generate)
    limits = {"generations": 3, "population_size": 6}
    search(problem(), timed, tmp_path, on_progress=seen.append, max_seconds=50, **limits)
    assert [step.generation for step in seen] == [0] * 6 + [1] * 6 + [2] * 6
    assert [step.evaluated for step in seen] == list(range(1, 19))
    assert [step.images for step in seen] == list(range(6, 109, 6))
    assert [step.seconds for step in seen] == list(range(2, 37, 2))
    assert [step.seconds_left for step in seen] == list(range(34, -1, -2))
    study = Study.open(tmp_path)
    assert (seen[-1].front_size, seen[-1].hypervolume) == (len(study.front()), study.history[-1].hypervolume)
    assert [seen[i].hypervolume for i in (5, 11, 17)] == [generation.hypervolume for generation in study.history]
    search(problem(), timed, tmp_path, on_progress=seen.append, **limits)
    assert len(seen) == 18  # nothing new


def test_scores_that_are_no_numbers_stop_the_search_and_lose_nothing(tmp_path):
    plain, made = evaluator(), []

    def score(images, items):
        made.append(items)
        return np.array(images) * (np.nan if len(made) == 9 else 1)

    with pytest.raises(EcadError, match="expected a finite number, found nan"):
        search(problem(), evaluator(score=score), tmp_path, **SMALL)
    assert len(Study.open(tmp_path).candidates) == 4
    assert Study.open(tmp_path).items == all_items(plain.prompts, plain.seeds)
    search(problem(), plain, tmp_path, **SMALL)
    assert len(Study.open(tmp_path).candidates) == sum(SIZES)
