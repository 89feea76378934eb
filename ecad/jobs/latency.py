"""Measures the time per image under a schedule, without the text encoder."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from functools import partial

from ecad.cost.latency import measure_interleaved, speedups
from ecad.image_generators.generator import ImageGenerator
from ecad.jobs.generate import Job
from ecad.prompts.embeds import PromptEmbeds
from ecad.utils.device import device_name


def conditions(generator: ImageGenerator, job: Job) -> dict[str, object]:
    """What a measured time depends on beside the schedule and the batch size, as JSON values."""
    return {
        "gpu": device_name(generator.pipe.device),
        "image_generator": generator.name,
        "dtype": str(generator.dtype).removeprefix("torch."),
        **{name: job.call[name] for name in ("guidance_scale", "height", "width")},
    }


def measure_latency(
    generator: ImageGenerator,
    job: Job,
    embeds: PromptEmbeds,
    batch_size: int,
    num_samples: int = 5,
    warmup_steps: int = 1,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> dict[str, object]:
    """Milliseconds per image, measured alternately for batches under a schedule and for the same batches uncached.

    Args:
        generator: generates the images with denoiser and VAE.
        job: the schedule and its settings.
        embeds: prompts of the batch; repeated if there are fewer than `batch_size`.
        batch_size: images per batch.
        num_samples: measured batches, cached and uncached each.
        warmup_steps: batches before the measured ones.
        progress: wraps the iterable of rounds, for instance in a progress bar.

    Returns:
        the published format (`avg`, `latencies`, `warmups`, ...), with the median, the quartiles of the samples, the
        uncached median, and the speed-up: the median over rounds of the ratio within a round.
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
        **conditions(generator, job),
        "warmups": per_image["cached"][:warmup_steps],
        "latencies": counted["cached"],
        "uncached_latencies": counted["uncached"],
    }
