"""Measured time, as ratios: what is compared runs side by side, so that a noisy machine disturbs all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping

from ecad.utils.device import synchronize


def measure_interleaved(
    runs: Mapping[str, Callable[[], object]],
    samples: int = 5,
    warmup: int = 1,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> dict[str, list[float]]:
    """Time several things in turn, round after round.

    Args:
        runs: what to time, by name.
        samples: rounds that count.
        warmup: rounds before them that do not.
        progress: what to draw the rounds through, for instance a progress bar.

    Returns:
        for each name its times in seconds, one a round.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for sample in progress(range(-warmup, samples)):
        for name, run in runs.items():
            synchronize()
            begun = time.perf_counter()
            run()
            synchronize()
            if sample >= 0:
                times[name].append(time.perf_counter() - begun)
    return times


def speedups(times: Mapping[str, list[float]], reference: str) -> dict[str, float]:
    """How many times faster than `reference` each was: the median over rounds of the ratio within a round.

    >>> speedups({"slow": [2.0, 4.0], "fast": [1.0, 2.0]}, "slow")
    {'slow': 1.0, 'fast': 2.0}
    """
    base = times[reference]
    return {
        name: statistics.median(slow / fast for slow, fast in zip(base, measured, strict=True))
        for name, measured in times.items()
    }
