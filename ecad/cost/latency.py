"""Measures time ratios: variants run in turns, so that noise of the machine affects all of them equally."""

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
    """Time several functions in turns, round by round.

    Args:
        runs: name -> the function to time.
        samples: number of rounds that count.
        warmup: number of rounds before that do not count.
        progress: wraps the iterable of rounds, for instance in a progress bar.

    Returns:
        name -> time of each round, in seconds.
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
    """The speed-up of each variant over `reference`: the median over rounds of the ratio within a round.

    Args:
        times: as `measure_interleaved` returns them.
        reference: name of the variant to compare with.

    >>> speedups({"slow": [2.0, 4.0], "fast": [1.0, 2.0]}, "slow")
    {'slow': 1.0, 'fast': 2.0}
    """
    base = times[reference]
    return {
        name: statistics.median(slow / fast for slow, fast in zip(base, measured, strict=True))
        for name, measured in times.items()
    }
