"""What probes say, of steps from the search and of components from images of their own."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ecad.errors import EcadError
from ecad.genetic import LocalEvaluator, Problem, Study
from ecad.genetic.probes import make_probes, probe_schedules, read_probes
from ecad.genetic.search import search
from ecad.prompts import Prompt
from ecad.schedules import heuristics, pixart_sites

SITES = pixart_sites(2)
# What reusing a component at a step costs, of an error of 1.
WEIGHTS = {"attn1": 0.5, "attn2": 0.25, "ff": 0.125}


def evaluator(decibels=True):
    def score(images, items):
        weights = np.array([WEIGHTS[component] for _, component in SITES])
        errors = [(~bits * weights / (1 + np.arange(len(bits)))[:, None]).sum() for bits in images]
        return -10 * np.log10(np.array(errors) + 1e-6)

    return LocalEvaluator(
        generate=lambda schedule, items: [schedule.recompute] * len(items),
        score=score,
        scorer="psnr",
        prompts=[Prompt("0", "a fox"), Prompt("1", "an owl")],
        seeds=[0],
        batch_size=2,
        decibels=decibels,
    )


def problem():
    return Problem(heuristics.none(SITES, 5), lambda bits, _: bits.sum(axis=(1, 2)), forecast="either")


def test_each_probe_leaves_out_one_thing_at_one_step():
    for name, schedules in probe_schedules(problem()).items():
        for step, schedule in enumerate(schedules, start=1):
            left_out = [SITES[site] for at, site in np.argwhere(~schedule.recompute) if at == step]
            assert (~schedule.recompute).sum() == len(left_out)
            assert left_out == [site for site in SITES if name in ("whole step", site[1])]


def test_a_search_tells_of_steps_and_images_of_components(tmp_path):
    search(problem(), evaluator(), tmp_path, generations=2, population_size=4).close()
    study = Study.open(tmp_path)
    found = read_probes(study)
    expected = [-10 * np.log10(2 * sum(WEIGHTS.values()) / (1 + step) + 1e-6) for step in range(1, 5)]
    assert list(found.quality) == ["whole step"]
    assert found.quality["whole step"] == pytest.approx(expected)
    assert (found.images, found.num_steps) == (2, 4)
    before = len(study.candidates)
    make_probes(study, evaluator(), tmp_path, lambda items, count: items)
    found = read_probes(study)
    assert list(found.quality) == ["whole step", "attn1", "attn2", "ff"]
    for name, weight in WEIGHTS.items():
        assert found.quality[name] == pytest.approx([-10 * np.log10(2 * weight / (1 + i) + 1e-6) for i in range(1, 5)])
    # They are scores, and no candidates.
    assert len(Study.open(tmp_path).candidates) == before
    found.save(tmp_path / "probes.json")
    assert json.loads((tmp_path / "probes.json").read_text())["quality"]["ff"] == list(found.quality["ff"])


def test_a_search_without_probes_says_so(tmp_path):
    search(problem(), evaluator(decibels=False), tmp_path, generations=1, population_size=4).close()
    with pytest.raises(EcadError, match="the study has not probed its steps"):
        read_probes(Study.open(tmp_path))
