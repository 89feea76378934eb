"""How long a generator takes for an image under a schedule, the text encoder excluded."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from ecad.cost.latency import measure_interleaved, speedups
from ecad.image_generators.generator import ImageGenerator
from ecad.jobs.generate import Job
from ecad.prompts.embeds import PromptEmbeds
from ecad.utils.device import device_name


def measure_latency(
    generator: ImageGenerator,
    job: Job,
    embeds: PromptEmbeds,
    batch_size: int,
    num_samples: int = 5,
    warmup_steps: int = 1,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> dict[str, Any]:
    """Milliseconds an image, of batches under a schedule and of the same batches uncached, in turns.

    Args:
        generator: makes the images, denoiser and VAE.
        job: the schedule and its settings.
        embeds: prompts of the batch; used over again if they are fewer.
        batch_size: images made at once.
        num_samples: batches that count, of each kind.
        warmup_steps: batches before them that do not.
        progress: what to draw the rounds through.

    Returns:
        the published format (`avg`, `latencies`, `warmups`, ...), with the median, the middle half of the samples, the
        uncached median and the speed-up: the median over rounds of the ratio within a round.
    """
    batch = embeds[[index % len(embeds) for index in range(batch_size)]]
    run = partial(generator.generate, batch, range(batch_size), **job.call)
    runs = {"cached": partial(run, job.schedule), "uncached": partial(run, None)}
    seconds = measure_interleaved(runs, warmup_steps + num_samples, warmup=0, progress=progress)
    per_image = {name: [1000 * time / batch_size for time in times] for name, times in seconds.items()}
    counted = {name: times[warmup_steps:] for name, times in per_image.items()}
    quartiles = statistics.quantiles(counted["cached"], n=4, method="inclusive") if num_samples > 1 else []
    return {
        "avg": statistics.fmean(counted["cached"]),
        "median": statistics.median(counted["cached"]),
        "middle_half": [quartiles[0], quartiles[2]] if quartiles else None,
        "uncached_median": statistics.median(counted["uncached"]),
        "speedup": speedups(counted, "uncached")["cached"],
        "batch_size": batch_size,
        "num_samples": num_samples,
        "warmup_steps": warmup_steps,
        "gpu": device_name(generator.pipe.device),
        "height": job.call["height"],
        "width": job.call["width"],
        "warmups": per_image["cached"][:warmup_steps],
        "latencies": counted["cached"],
        "uncached_latencies": counted["uncached"],
    }
