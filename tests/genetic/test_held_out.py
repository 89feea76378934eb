from __future__ import annotations

import numpy as np
from synthetic import evaluator, problem

from ecad.genetic.held_out import compare
from ecad.genetic.search import search


def front():
    found = search(problem(), evaluator(), generations=2, population_size=6).front()
    return [found[0], found[1], found[2]]


def test_only_a_significantly_better_cheaper_schedule_dominates():
    hard = np.array([0.0, 5.0, -9.0, 3.0] * 8)  # images differ far more than schedules do
    noise = np.random.default_rng(0).normal(size=(2, 32))
    scores = np.array([hard, hard - 0.5 + 0.1 * noise[0], hard + 2 * noise[1]])
    cheap, worse, doubtful = compare(front(), scores, np.arange(32))
    assert (cheap.dominated_by, doubtful.dominated_by) == (None, None)
    assert worse.dominated_by == cheap.candidate.schedule.name
    assert worse.low < worse.quality == scores[1].mean() < worse.high


def test_images_of_one_prompt_are_no_independent_witnesses():
    one_prompt = np.zeros(12, dtype=int)
    own = np.array([0.0, 0.1] * 6)
    scores = np.array([own + 1, own, own])
    assert compare(front(), scores, np.arange(12))[1].low < own.mean()
    assert compare(front(), scores, one_prompt)[1].low == compare(front(), scores, one_prompt)[1].high
