from __future__ import annotations

import numpy as np

from ecad.quality import mean_interval


def test_covers_the_true_mean_about_95_times_in_100() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        low, high = mean_interval(rng.standard_normal(50), resamples=400)
        covered += low <= 0 <= high
    # Three standard deviations around 0.93, what the percentile bootstrap gives at 50 samples.
    assert 0.89 <= covered / 400 <= 0.97


def test_images_of_one_prompt_are_drawn_together() -> None:
    scores = np.repeat(np.arange(10.0), 20)
    alone, grouped = mean_interval(scores), mean_interval(scores, np.repeat(np.arange(10), 20))
    assert grouped == mean_interval(np.arange(10.0))
    assert grouped[1] - grouped[0] > 3 * (alone[1] - alone[0])
