"""Serve random requests from several threads, and compare every image with one that was generated alone.

python tools/compatibility/stress.py [--generations 3000] [--threads 4] [--seed 0] [--output build/stress.json]

`stress_requests.py` draws the requests. Weights are copied into the model between generations. Some generations are
aborted in a random row, by an error or by the pipeline's own flag. In some, another pipeline uses the denoiser between
two rows. A thread has its own pipelines and shares others, one generation at a time. In a crowd, all threads use one
denoiser at once, one of them with a schedule. Each image must be bit-identical to that of a fresh pipeline, or to the
output of `interpreter.py` for the schedule. After each round the cache must be empty and memory must not grow.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import logging
import os
import random
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import psutil
import torch
from interpreter import interpret
from recording import record
from served import KINDS, Served
from stress_requests import SEEDS, Request, bare, crowded, draw, schedule_of, with_visitors

import ecad
from ecad.utils.files import write_atomic

_MEGABYTE = 1 << 20
# Allocators keep some of what was freed.
_MAY_GROW = 48 * _MEGABYTE


class _Failure(Exception):
    """Aborts a generation."""


@dataclass
class Server:
    """A pipeline that one thread uses at a time, and its current weights and schedule."""

    served: Served
    lock: Any = field(default_factory=threading.Lock)
    loaded: tuple[int, int] = (0, 0)
    schedule: tuple[int, int, bool] | None = None
    run: Any = None


@dataclass
class Tally:
    """Counts of the results, under a lock."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock)

    def add(self, request: Request, fault: str | None, *where: str) -> None:
        with self.lock:
            for what in ("generations", *_kinds_of(request), *where, *(["faults"] if fault else [])):
                self.counts[request.kind, what] += 1
            if fault:
                self.faults.append(f"{fault}: {request}")


def _kinds_of(request: Request) -> Iterator[str]:
    yield "bare" if request.schedule is None else "forecast" if request.forecast else "cached"
    if request.ends:
        yield f"ended by {request.ends[0]}"
    if request.visitor is not None:
        yield "visited"


def references(requests: list[Request]) -> dict[Request, str]:
    """The expected image of each request, generated alone on a fresh pipeline."""
    found: dict[Request, str] = {}
    for request in requests:
        alone = replace(request, visitor=None)
        if alone in found or (alone.ends or ("",))[0] == "error":
            continue
        served = KINDS[request.kind].make()
        served.load(request.weights, request.lora)
        model = served.pipe.transformer

        def image(served: Served = served, request: Request = alone) -> list[torch.Tensor]:
            return [_image(served, request)]

        if request.schedule is None:
            found[alone] = digest(image()[0])
        else:
            modules = {"transformer": model}
            schedules = {"transformer": schedule_of(request, model)}
            found[alone] = digest(interpret(image, modules, schedules, record(image, modules)).output[0])
    return found


def digest(image: torch.Tensor) -> str:
    """A digest of an image."""
    return hashlib.sha256(image.numpy().tobytes() + repr(image.shape).encode()).hexdigest()


def _image(served: Served, request: Request, visit: Any = None) -> torch.Tensor:
    def after_row(pipe: Any, row: int) -> None:
        if request.ends == ("error", row):
            raise _Failure
        if request.ends == ("flag", row):
            pipe._interrupt = True
        if request.visitor == row and visit is not None:
            visit()

    return served.image(request.prompt, request.size, request.steps, request.seed, after_row)


def serve(server: Server, request: Request, expected: dict[Request, str]) -> str | None:
    """Generate one image; returns what is wrong with it, or None."""
    with server.lock:
        _prepare(server, request)
        ended = False
        visits: list[str] = []
        try:
            image = _image(server.served, request, lambda: visits.extend(_visit(server, request, expected)))
        except _Failure:
            ended = True
        fault = None
        if (request.ends or ("",))[0] == "error":
            fault = None if ended else "the error was swallowed"
        elif digest(image) != expected[replace(request, visitor=None)]:
            fault = "another image"
        if visits:
            fault = visits[0]
        kept = server.run.stats.cached_bytes if server.run else 0
        return fault or (f"{kept} bytes kept" if kept else None)


def _prepare(server: Server, request: Request) -> None:
    """Set weights and schedule like a server: only what differs is changed."""
    if server.loaded != (request.weights, request.lora):
        server.served.load(request.weights, request.lora)
        server.loaded = request.weights, request.lora
    wanted = None if request.schedule is None else (request.schedule, request.steps, request.forecast)
    if wanted == server.schedule:
        return
    pipe = server.served.pipe
    if wanted is None:
        ecad.disable_cache(pipe)
        server.run = None
    else:
        server.run = ecad.enable_cache(pipe, schedule_of(request, pipe.transformer))
    server.schedule = wanted


def _rest(server: Server) -> None:
    """Take the cache off, and generate the same small image after every round: schedulers hold as much as it needed."""
    ecad.disable_cache(server.served.pipe)
    server.schedule = server.run = None
    server.served.image(0, server.served.kind.sizes[0], 4, 0, lambda *_: None)


def _visit(server: Server, request: Request, expected: dict[Request, str]) -> Iterator[str]:
    """Another pipeline generates a whole image with the same denoiser, bare or with the schedule."""
    other = server.served.sibling()
    theirs = replace(request, seed=(request.seed + 1) % SEEDS, ends=None, visitor=None)
    image = digest(_image(other, theirs))
    if image not in (expected.get(theirs), expected.get(bare(theirs))):
        yield "the visitor's image is neither the bare nor the cached one"


def run_round(
    pool: ThreadPoolExecutor,
    servers: list[list[Server]],
    requests: list[Request],
    tally: Tally,
    expected: dict[Request, str],
    chance: random.Random,
) -> None:
    """Serve requests from all threads, each with the thread's own pipeline or with the shared one."""
    own, shared = servers[:-1], servers[-1]
    kinds = list(KINDS)

    def work(number: int, batch: list[tuple[Request, bool]]) -> None:
        for request, alone in batch:
            place = kinds.index(request.kind)
            server = own[number][place] if alone else shared[place]
            try:
                fault = serve(server, request, expected)
            except Exception as error:
                fault = f"{type(error).__name__}: {error}"
            tally.add(request, fault)

    batches: list[list[tuple[Request, bool]]] = [[] for _ in own]
    for number, request in enumerate(requests):
        batches[number % len(own)].append((request, chance.random() < 0.5))
    list(pool.map(work, range(len(own)), batches))


def run_crowd(
    pool: ThreadPoolExecutor, threads: int, requests: list[Request], tally: Tally, expected: dict[Request, str]
) -> None:
    """Use one denoiser of each kind in all threads at once, without a lock: the first with a schedule, the others bare.

    Each thread has its own pipeline and scheduler; the weights do not change.
    """

    def work(number: int, served: Served, batch: list[Request]) -> None:
        for request in batch:
            mine = request if number == 0 else bare(request)
            try:
                fault = None if digest(_image(served, mine)) == expected[mine] else "another image in the crowd"
            except Exception as error:
                fault = f"{type(error).__name__}: {error}"
            tally.add(mine, fault, "in the crowd")

    for kind in KINDS:
        batch = [request for request in requests if request.kind == kind]
        first = KINDS[kind].make()
        pipelines = [first, *(first.sibling() for _ in range(threads - 1))]
        run = ecad.enable_cache(first.pipe, schedule_of(batch[0], first.pipe.transformer))
        list(pool.map(work, range(threads), pipelines, [batch] * threads))
        run.disable()


def live_bytes() -> int:
    """Bytes of all reachable tensors."""
    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        try:
            if issubclass(type(thing), torch.Tensor) and thing.device.type != "meta":
                storage = thing.untyped_storage()
                storages[storage.data_ptr()] = storage.nbytes()
        except (ReferenceError, RuntimeError):
            continue
    return sum(storages.values())


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings and messages of libraries."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def stress(generations: int, threads: int, seed: int, rounds: int = 8) -> dict[str, Any]:
    """Counts, faults and memory use of a whole run."""
    chance = random.Random(seed)
    requests = [draw(chance) for _ in range(generations)]
    crowd = crowded(generations, threads, chance)
    expected = references([*with_visitors(requests), *crowd, *map(bare, crowd)])
    servers = [[Server(kind.make()) for kind in KINDS.values()] for _ in range(threads + 1)]
    tally, memory = Tally(), []
    begun = time.monotonic()
    with ThreadPoolExecutor(threads) as pool:
        for number in range(rounds):
            part = requests[number * generations // rounds : (number + 1) * generations // rounds]
            run_round(pool, servers, part, tally, expected, chance)
            for server in [server for group in servers for server in group]:
                _rest(server)
            if number == 0:  # so that leftovers show in the following rounds
                run_crowd(pool, threads, crowd, tally, expected)
            memory.append({"tensors": live_bytes(), "process": psutil.Process().memory_info().rss})
    if memory[-1]["tensors"] > memory[0]["tensors"]:
        tally.faults.append(f"tensors grew from {memory[0]['tensors']} to {memory[-1]['tensors']} bytes")
    if memory[-1]["process"] > memory[rounds // 4]["process"] + _MAY_GROW:
        tally.faults.append(f"the process grew from {memory[rounds // 4]['process']} to {memory[-1]['process']} bytes")
    counts: dict[str, dict[str, int]] = {kind: {} for kind in KINDS}
    for (kind, what), count in sorted(tally.counts.items()):
        counts[kind][what] = count
    return {
        "generations": generations,
        "threads": threads,
        "seed": seed,
        "references": len(expected),
        "seconds": time.monotonic() - begun,
        "counts": counts,
        "memory": memory,
        "faults": tally.faults,
    }


def show(found: dict[str, Any]) -> None:
    """Print the table."""
    columns = [
        "generations",
        "bare",
        "cached",
        "forecast",
        "ended by error",
        "ended by flag",
        "visited",
        "in the crowd",
        "faults",
    ]
    print(f"{'':22}" + "".join(f"{name:>15}" for name in columns))
    for kind, counts in found["counts"].items():
        print(f"{kind:22}" + "".join(f"{counts.get(name, 0):15}" for name in columns))
    first, last = found["memory"][0], found["memory"][-1]
    for name in ("tensors", "process"):
        print(
            f"{name}: {first[name] / _MEGABYTE:.2f} MB after the first round, {last[name] / _MEGABYTE:.2f} at the end"
        )
    print(f"{found['references']} images made alone, {found['seconds']:.0f} seconds for the served ones")
    for fault in found["faults"][:20]:
        print(f"    {fault}")
    print(f"{len(found['faults'])} faults")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generations", type=int, default=3000)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("build/stress.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    with quiet(), torch.no_grad():
        found = stress(args.generations, args.threads, args.seed)
    show(found)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(args.output, json.dumps(found, indent=1) + "\n")
    sys.exit(bool(found["faults"]))


if __name__ == "__main__":
    main()
