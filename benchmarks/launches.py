"""Launches, bytes and modelled time of rows on a GPU, counted on the meta device without a measurement.

python benchmarks/launches.py [--models flux-1024 ...] [--batches 1 8] [--gpus H100 ...]

For each full model: kernels, bytes and TFLOP of a computed and a fully reused row, with this runtime and with hooks.
The time is modelled from these and a GPU's data sheet. A kernel takes the longer of its compute and memory time, at
least `SHORTEST`. A row takes the longer of the time of its kernels and the time to launch them. There are three
ways to run a reused row: `eager` launches each operator, `graph` replays them as a CUDA graph, and `fused` runs
what `fuse_rows` leaves of it, in which one compiled kernel reads each cached output once. The result is the measured
fraction of the theoretical speed-up.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import torch
from gpu_speed.counting import Counted, Kernel, count_rows, plain_hooks
from gpu_speed.measure import macs_of
from gpu_speed.models import MODELS, Loop, make_loop

from ecad.cost.table import CostTable
from ecad.schedules import heuristics
from ecad.utils.files import write_atomic


class Gpu(NamedTuple):
    """A GPU's data sheet: dense bf16 FLOP/s with fp32 accumulation, and bytes per second."""

    flops: float
    bandwidth: float


# NVIDIA's data sheets: H100 and H200 SXM, A100 80 GB SXM, L40S, RTX A6000.
GPUS = {
    "H100": Gpu(989e12, 3.35e12),
    "H200": Gpu(989e12, 4.8e12),
    "A100": Gpu(312e12, 2.04e12),
    "L40S": Gpu(362e12, 0.864e12),
    "A6000": Gpu(155e12, 0.768e12),
}
# Assumed fractions of the peak that optimized libraries reach.
PRODUCTS, ATTENTION, BANDWIDTH = 0.7, 0.55, 0.85
# Assumed seconds to launch an operator from Python, to start the next kernel of a graph, and of the shortest kernel.
LAUNCH, IN_A_GRAPH, SHORTEST = 6e-6, 1e-6, 2e-6
# Seconds of calling a compiled row with about 150 tensors; 53 to 127 µs on a busy CPU.
CALL = 100e-6
# Intervals between computed steps.
INTERVALS = (2, 3)
WAYS = ("eager", "graph", "fused")


def seconds_of(kernels: Iterable[Kernel], gpu: Gpu) -> float:
    """Modelled seconds of the device.

    >>> round(seconds_of([Kernel("mm", 3, 692_300_000_000), Kernel("add", 0)], GPUS["H100"]), 6)
    0.001002
    """
    reached = {"attention": ATTENTION}
    return sum(
        max(
            kernel.flops / (gpu.flops * reached.get(kernel.name, PRODUCTS)),
            kernel.moved / (gpu.bandwidth * BANDWIDTH),
            SHORTEST,
        )
        for kernel in kernels
    )


def row_seconds(kernels: Sequence[Kernel], gpu: Gpu, way: str = "eager") -> float:
    """Modelled seconds of a row.

    Args:
        kernels: kernels of the row.
        gpu: data sheet of the GPU.
        way: "eager", "graph" or "fused".
    """
    busy = seconds_of(kernels, gpu)
    if way == "graph":
        return busy + IN_A_GRAPH * len(kernels)
    return max(busy, LAUNCH * len(kernels) + (CALL if way == "fused" else 0.0))


def fraction_of_theoretical(interval: int, steps: int, computed: float, reused: float, table: CostTable) -> float:
    """The modelled fraction of the theoretical speed-up, if every `interval`-th step computes everything.

    Args:
        interval: distance between computed steps.
        computed, reused: seconds of a row.
        table: cost table in MACs.
    """
    bits = heuristics.every_n(table.sites, steps, interval).recompute
    theoretical = int(table.price(bits | True)) / int(table.price(bits))
    rows = int(bits[:, 0].sum())
    return steps * computed / (rows * computed + (steps - rows) * reused) / theoretical


def count_model(loop: Loop, table: CostTable) -> dict[str, Any]:
    """Kernels, bytes and TFLOP of a computed and a fully reused row."""
    every_2 = heuristics.every_n(table.sites, 2, 2)
    here: Counted = count_rows(loop, every_2)
    with plain_hooks(loop):
        plain = count_rows(loop, every_2)
    rows = {"computed": count_rows(loop, None).rows[0], "reused": here.rows[1], "reused, plain hooks": plain.rows[1]}
    rows["reused, fused"] = count_rows(loop, every_2, fuse_rows=True).rows[1]
    return {"kept": here.kept, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--batches", nargs="*", type=int, default=[1, 8])
    parser.add_argument("--gpus", nargs="*", default=["H100", "A100"], choices=list(GPUS))
    parser.add_argument("--tiny", action="store_true", help="two narrow blocks of every model")
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks/launches.json"))
    args = parser.parse_args()
    diffusers.utils.logging.set_verbosity_error()
    found = []
    for name in args.models:
        for batch in args.batches:
            loop = make_loop(MODELS[name], "meta", torch.bfloat16, batch, 2, args.tiny)
            found.append(_report(loop, macs_of(MODELS[name], args.tiny, batch), args.gpus))
    assumed = {"gpus": {name: GPUS[name]._asdict() for name in args.gpus}, "products": PRODUCTS, "attention": ATTENTION}
    assumed |= {"bandwidth": BANDWIDTH, "launch": LAUNCH, "in_a_graph": IN_A_GRAPH, "shortest": SHORTEST}
    write_atomic(args.output, json.dumps({"assumed": assumed, "models": found}, indent=1) + "\n")
    print(f"written to {args.output}")


def _report(loop: Loop, table: CostTable, gpus: Sequence[str]) -> dict[str, Any]:
    counted = count_model(loop, table)
    print(f"{loop.model.name}, batch {loop.batch}; kept outputs {counted['kept'] / 1e6:.1f} MB")
    result: dict[str, Any] = {"model": loop.model.name, "batch": loop.batch, "kept": counted["kept"], "rows": {}}
    for row, kernels in counted["rows"].items():
        moved, flops = sum(kernel.moved for kernel in kernels), sum(kernel.flops for kernel in kernels)
        result["rows"][row] = {"launches": len(kernels), "bytes": moved, "flops": flops}
        print(f"  {row:20}{len(kernels):6} launches{moved / 1e9:9.2f} GB{flops / 1e12:9.3f} TFLOP")
    computed, reused, plain, fused = counted["rows"].values()
    for name in gpus:
        gpu = GPUS[name]
        bare = row_seconds(computed, gpu)
        times = {way: row_seconds(fused if way == "fused" else reused, gpu, way) for way in WAYS}
        times = {"plain hooks": row_seconds(plain, gpu), **times}
        shares = {
            way: {f"every {n}": fraction_of_theoretical(n, 20, bare, seconds, table) for n in INTERVALS}
            for way, seconds in times.items()
        }
        result[name] = {"computed": bare, "launching": LAUNCH * len(computed), "reused": times, "fraction": shares}
        bound = "launches" if bare > 1.001 * seconds_of(computed, gpu) else "the device"
        print(f"  {name}: a computed row {1e3 * bare:.2f} ms, bound by {bound}")
        for way, seconds in times.items():
            told = ", ".join(f"{key} {share:.3f} of the theoretical speed-up" for key, share in shares[way].items())
            print(f"    reused, {way:12}{1e3 * seconds:8.3f} ms; {told}")
    return result


if __name__ == "__main__":
    main()
