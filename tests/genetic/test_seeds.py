from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecad.genetic import LocalEvaluator, Problem
from ecad.genetic.seeds import best_steps, step_seeds
from ecad.prompts import Prompt
from ecad.schedules import CacheSchedule, heuristics, pixart_sites


def harm(errors: list[float], computed: tuple[int, ...]) -> float:
    """The sum that `best_steps` makes small, step by step."""
    total, last = 0.0, 0
    for step in range(len(errors) + 1):
        if step in computed:
            last = step
        else:
            total += errors[step - 1] * (step - last) ** 2
    return total


@given(st.lists(st.floats(0.001, 10), min_size=1, max_size=7), st.data())
def test_no_other_choice_of_steps_does_less_harm(errors: list[float], data: st.DataObject) -> None:
    kept = data.draw(st.integers(1, len(errors) + 1))
    found = best_steps(errors, kept)
    assert len(found) == kept
    assert list(found) == sorted({0, *found})
    best = min(harm(errors, (0, *rest)) for rest in combinations(range(1, len(errors) + 1), kept - 1))
    assert harm(errors, found) == pytest.approx(best)


def test_seeds_spend_their_steps_where_the_probes_say() -> None:
    weights = np.array([0, 1, 1, 1, 50, 1, 1, 50])
    problem = Problem(heuristics.none(pixart_sites(2), 8), lambda bits: bits.sum(axis=(1, 2)))

    def score(images: list[CacheSchedule], items: object) -> np.ndarray:
        reused = ~images[0].recompute.all(axis=1)
        return np.array([-10 * np.log10(weights[reused].sum() * 1e-6)])

    evaluator = LocalEvaluator(
        lambda schedule, items: [schedule], score, scorer="psnr", prompts=[Prompt("0", "x")], seeds=[0], batch_size=1
    )
    seeds = step_seeds(problem, evaluator, 99)
    assert [int(seed.recompute.all(axis=1).sum()) for seed in seeds] == [7, 6, 5, 4, 3, 2, 1]
    assert all((seed.recompute.all(axis=1) == seed.recompute.any(axis=1)).all() for seed in seeds)
    assert np.flatnonzero(seeds[4].recompute[:, 0]).tolist() == [0, 4, 7]
    assert step_seeds(problem, evaluator, 3) == [seeds[0], seeds[3], seeds[6]]
