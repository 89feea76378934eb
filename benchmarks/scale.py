"""The cost of distributing work: two workers compared with one, overhead per task, a thousand workers, and faults.

python benchmarks/scale.py [--executors local,ray] [--output build/benchmarks/scale]

1. The same batches of the built-in model's images with one worker and with two, in turns. The efficiency is the time of
   one divided by twice the time of two. It needs two idle cores.
2. The time that the driver and the transport add to an empty task.
3. A thousand workers simulated on a virtual clock, with the real scheduler: how long they wait for it.
4. Faults and their results.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ecad import builtin
from ecad.execution import Executor, Failure, Job, Task, WorkerSpec
from ecad.execution.local import LocalWorkers
from ecad.execution.worker import Reply, WorkerInfo, worker_versions
from ecad.utils.files import write_atomic

STEPS, SITES, BATCH = 20, 36, 4


def idle() -> Job:
    """A job whose task says what to do: nothing, or one kind of fault."""

    def work(fault: str) -> str:
        kind, _, mark = fault.partition(" ")
        if kind and not (mark and Path(mark).exists()):
            if mark:
                Path(mark).touch()
            if kind == "raise":
                raise ValueError("a bad day")
            if kind == "die":
                os.kill(os.getpid(), 9)
            time.sleep(1000)
        return fault

    return Job(work, {})


def workers(executor: str, spec: WorkerSpec, count: int) -> Any:
    if executor == "local":
        return LocalWorkers(spec, count)
    from ecad.execution.on_ray import RayWorkers

    return RayWorkers(spec, count)


def images() -> WorkerSpec:
    prompts = [[f"{i:04d}", text] for i, text in enumerate(builtin.prompts("search")[:BATCH])]
    options = {"image_generator": "EmojiImageGenerator", "weights": None, "device": "cpu", "batch_size": BATCH}
    scored = {"images": [[prompts, [0], "psnr", None]], "reference_steps": None}
    return WorkerSpec("ecad.genetic.evaluation.workers:worker", {**options, **scored})


def efficiency(count: int, rounds: int) -> dict[str, Any]:
    """Random schedules, by one worker and by two, in turns."""
    random = np.random.default_rng(0)
    bits = [np.packbits(random.random((STEPS, SITES)) < 0.5).tobytes() for _ in range(count)]
    tasks = [Task(f"schedule {i}", (0, STEPS, packed, False, None, None, 0)) for i, packed in enumerate(bits)]
    seconds: dict[int, list[float]] = {1: [], 2: []}
    scores = []
    with Executor(workers("local", images(), 1), 600) as one, Executor(workers("local", images(), 2), 600) as two:
        crews = {1: one, 2: two}
        for number, crew in crews.items():  # first the uncached images, until all workers are ready
            while len(crew.summary()) < number or min(row["tasks"] for row in crew.summary()) < 1:
                list(crew.run(tasks[:number]))
        for _ in range(rounds):
            for number, crew in crews.items():
                began = time.monotonic()
                scores.append({place: result.tolist() for place, result in crew.run(tasks)})
                seconds[number].append(time.monotonic() - began)
    ratios = [a / (2 * b) for a, b in zip(seconds[1], seconds[2], strict=True)]
    return {"seconds": seconds, "efficiency": median(ratios), "identical": all(s == scores[0] for s in scores)}


def overhead(executor: str, count: int = 500) -> dict[str, float]:
    with Executor(workers(executor, WorkerSpec("scale:idle", {}), 1), 600) as crew:
        list(crew.run([Task("first", "")]))
        began = time.monotonic()
        list(crew.run(Task(str(i), "") for i in range(count)))
        return {"milliseconds_a_task": (time.monotonic() - began) / count * 1000}


class SimulatedWorkers:
    """Workers on a virtual clock, which only advances while the driver runs."""

    def __init__(self, count: int, seconds: Callable[[], float], perfect: bool) -> None:
        self._count, self._seconds, self._perfect, self._ahead = count, seconds, perfect, 0.0
        self._queue: list[tuple[float, int, Reply]] = []
        self._started = 0

    def clock(self) -> float:
        return self._ahead + (0.0 if self._perfect else time.perf_counter())

    def wanted(self, unfit: int) -> int:
        return self._count

    def start(self) -> int:
        self._started += 1
        heapq.heappush(
            self._queue, (self.clock(), self._started, Reply("ready", WorkerInfo("imagined:0", worker_versions(), {})))
        )
        return self._started

    def send(self, worker: int, payload: Any) -> None:
        seconds = self._seconds()
        heapq.heappush(self._queue, (self.clock() + seconds, worker, Reply("done", None, seconds=seconds)))

    def wait(self, seconds: float) -> list[tuple[int, Reply]]:
        if self._queue:
            self._ahead += max(0.0, self._queue[0][0] - self.clock())
        found = []
        while self._queue and self._queue[0][0] <= self.clock():
            _, worker, reply = heapq.heappop(self._queue)
            found.append((worker, reply))
        return found

    def stop(self, worker: int) -> None: ...

    def close(self) -> None: ...


def thousand(count: int, seconds: float, tasks: int) -> dict[str, float]:
    """Also with a driver that takes no time: even then the workers finish the last round one by one."""
    busy, real = {}, 0.0
    for perfect in (True, False):
        random = np.random.default_rng(0)
        simulated = SimulatedWorkers(count, lambda random=random: seconds * float(random.uniform(0.7, 1.3)), perfect)
        crew = Executor(simulated, 1e6, clock=simulated.clock)
        while len(crew.summary()) < count:
            list(crew.run(Task("", b"") for _ in range(count)))
        before = sum(row["busy_seconds"] for row in crew.summary())
        began, real = simulated.clock(), time.perf_counter()
        list(crew.run(Task("", b"") for _ in range(tasks)))
        real = time.perf_counter() - real
        spent = sum(row["busy_seconds"] for row in crew.summary()) - before
        busy[perfect] = spent / (simulated.clock() - began) / count
    return {
        "workers": count,
        "seconds_a_task": seconds,
        "tasks": tasks,
        "driver_microseconds_a_task": real / tasks * 1e6,
        "busy": busy[False],
        "busy_of_a_perfect_driver": busy[True],
    }


def faults(executor: str) -> list[dict[str, str]]:
    """One task in twelve fails; the others must still be done."""
    cases = {
        "worker killed in mid-task": ("die", True),
        "task raises once": ("raise", True),
        "task hangs once": ("hang", True),
        "task raises always": ("raise", False),
        "task kills its worker always": ("die", False),
    }
    table = []
    for name, (kind, once) in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            fault = f"{kind} {folder}/mark" if once else kind
            crew = Executor(workers(executor, WorkerSpec("scale:idle", {}), 2), timeout=5)
            with crew:
                found = dict(crew.run(Task(str(i), fault if i == 3 else "") for i in range(12)))
            result = found.pop(3)
            outcome = f"given up: {result.reason}" if isinstance(result, Failure) else "done on a retry"
            complete = sorted(found) == [i for i in range(12) if i != 3]
            table.append({"fault": name, "outcome": outcome, "others": "all done" if complete else "LOST"})
            print(f"  {name:32}{outcome:72}{table[-1]['others']}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executors", default="local,ray")
    parser.add_argument("--schedules", type=int, default=24, help="batches per round when comparing 1 and 2 workers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--skip-images", action="store_true", help="skip the comparison of 1 and 2 workers, which takes minutes"
    )
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks/scale"))
    args = parser.parse_args()
    # Workers find this file by its name.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    result: dict[str, Any] = {"cores": len(os.sched_getaffinity(0)), "machine": platform.processor()}
    if not args.skip_images:
        result["efficiency"] = efficiency(args.schedules, args.rounds)
        print(f"2 workers compared with 1: efficiency {result['efficiency']['efficiency']:.2f}, {result['efficiency']}")
    result["thousand"] = [thousand(1000, seconds, 20_000) for seconds in (60.0, 1.0)]
    for row in result["thousand"]:
        print(
            f"{row['workers']} workers, tasks of {row['seconds_a_task']:g} s: {row['busy']:.1%} busy (a perfect driver "
            f"{row['busy_of_a_perfect_driver']:.1%}), {row['driver_microseconds_a_task']:.0f} µs of the driver per task"
        )
    for executor in args.executors.split(","):
        result[executor] = overhead(executor)
        print(f"{executor}: {result[executor]['milliseconds_a_task']:.2f} ms per empty task")
        result[executor]["faults"] = faults(executor)
    write_atomic(args.output / "scale.json", json.dumps(result, indent=1) + "\n")
    print(f"written to {args.output / 'scale.json'}")


if __name__ == "__main__":
    main()
