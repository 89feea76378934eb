"""Workers that score as `synthetic.evaluator` does, and have the faults that they are told."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import synthetic

from ecad.errors import NotFiniteError
from ecad.execution import Executor, Job, WorkerSpec
from ecad.execution.local import LocalWorkers
from ecad.genetic.evaluation.pool import ImageSet, PooledEvaluator
from ecad.genetic.genes import Forecast
from ecad.genetic.search import search
from ecad.genetic.study.items import all_items
from ecad.schedules import CacheSchedule


def worker(faults: dict[str, float]) -> Job:
    """`faults`: bits of a schedule, as hex digits -> poisoned (0), or seconds that its batches take."""
    plain = synthetic.evaluator()
    items = all_items(plain.prompts, plain.seeds)

    def work(task: Any) -> np.ndarray | None:
        if task[0] == "outputs":
            return plain.outputs()
        _, steps, packed, forecast, products, _, first = task
        bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=steps * len(synthetic.SITES)).astype(bool)
        schedule = CacheSchedule(bits.reshape(steps, -1), synthetic.SITES, forecast=forecast)
        schedule = schedule.replace(output_products=products)
        time.sleep(faults.get(packed.hex(), 0.0))
        if faults.get(packed.hex()) == 0:
            raise NotFiniteError("expected images, found values that are no finite numbers")
        batch = items[first : first + plain.batch_size]
        return plain.score(plain.generate(schedule, batch), batch)

    return Job(work, {"settings": dict(plain.settings)})


def run(
    folder: Path,
    faults: dict[str, float],
    workers: int = 2,
    forecast: Forecast = "never",
    **options: object,
):
    plain = synthetic.evaluator()
    spec = WorkerSpec("synthetic_worker:worker", {"faults": faults})
    with Executor(LocalWorkers(spec, workers, gpus_per_worker=0), 60, folder / "failures.log") as executor:
        images = ImageSet(plain.prompts, plain.seeds, "synthetic")
        evaluator = PooledEvaluator(executor, 0, images, plain.batch_size)

        settings = {"generations": 4, "population_size": 6, **options}
        problem = replace(synthetic.problem(), forecast=forecast)
        return search(problem, evaluator, folder, **settings), executor.summary()
