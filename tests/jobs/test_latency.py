"""What is timed, and in which order; never how long it takes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from ecad.jobs.generate import Job
from ecad.jobs.latency import measure_latency
from ecad.prompts.embeds import PromptEmbeds
from ecad.schedules import CacheSchedule, pixart_sites

SCHEDULE = CacheSchedule(np.ones((3, 3), dtype=bool), pixart_sites(1))
CALL = {"steps": 3, "guidance_scale": 2.0, "height": 64, "width": 32}


def test_a_schedule_and_none_are_run_in_turns_at_the_same_settings() -> None:
    calls = []

    def generate(embeds: PromptEmbeds, seeds: range, schedule: CacheSchedule | None, **call: object) -> None:
        calls.append(([int(row[0]) for row in embeds.prompt_embeds], list(seeds), schedule, call))

    pipe = SimpleNamespace(device=torch.device("cpu"))
    generator = SimpleNamespace(name="tiny", dtype=torch.float32, generate=generate, pipe=pipe)
    embeds = PromptEmbeds(tuple(torch.full((1,), float(i)) for i in range(2)))
    found = measure_latency(generator, Job(Path(), SCHEDULE, CALL), embeds, 5, num_samples=2, warmup_steps=1)  # type: ignore[arg-type]
    assert [schedule for _, _, schedule, _ in calls] == [SCHEDULE, None] * 3
    # Two prompts fill a batch of five.
    assert all(call == ([0, 1, 0, 1, 0], [0, 1, 2, 3, 4], call[2], CALL) for call in calls)
    assert (len(found["latencies"]), len(found["uncached_latencies"]), len(found["warmups"])) == (2, 2, 1)
    assert (found["height"], found["width"], found["batch_size"]) == (64, 32, 5)
