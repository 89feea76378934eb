"""A small finished study on cheap scores, and its parts."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ecad.genetic import LocalEvaluator, Problem, Store
from ecad.genetic.evaluation.evaluator import evaluate_each
from ecad.genetic.search import search
from ecad.prompts import Prompt
from ecad.schedules import heuristics, pixart_sites

SITES = pixart_sites(2)


def evaluator(prompts: int = 2, seed: int = 0) -> LocalEvaluator:
    """Scores that are cheap: what is not recomputed is missed, the earlier the more."""
    return LocalEvaluator(
        generate=lambda schedule, items: [schedule.recompute] * len(items),
        score=lambda images, items: np.array(
            [-np.sum(~bits / (2.0 + np.arange(len(bits)))[:, None]) for bits in images]
        ),
        scorer="synthetic",
        prompts=[Prompt(f"{seed}_{i}", f"a fox {i}") for i in range(prompts)],
        seeds=[seed],
        batch_size=2,
    )


def model() -> Problem:
    return Problem(heuristics.none(SITES, 6), lambda bits, _: 100 + bits.sum(axis=(1, 2)))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of four generations whose front was scored on three held-out prompts."""
    folder = tmp_path_factory.mktemp("study")
    study = search(replace(model(), forecast="either"), evaluator(), folder, generations=4, population_size=5)
    with Store.open(folder) as store:
        list(evaluate_each(evaluator(3, seed=9), [candidate.schedule for candidate in study.front()], store))
    study.close()
    return folder


@pytest.fixture
def study_folder(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "study"))
