"""Time to compute the cost of a population of schedules, compared with a float64 product over all bits.

python benchmarks/cost.py [--schedules 10000] [--repeats 21] [--output build/benchmarks/cost.json]
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # one core: read once, by the first import of numpy or torch

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from ecad.cost import CostTable, find_architecture, macs_table
from ecad.utils.files import write_atomic

STEPS = 20


def milliseconds(job: Callable[[], object], repeats: int) -> float:
    """Median wall time of a job, after one run to warm up."""
    job()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        job()
        times.append(time.perf_counter() - start)
    return 1e3 * median(times)


def multiply_out(table: CostTable, recompute: np.ndarray) -> np.ndarray:
    """The direct way: every bit as a float64, times its site's MACs."""
    bits = recompute.astype(np.float64)
    bits[:, 0] = 1
    price = np.tile(table.per_site.astype(np.float64), STEPS)
    return bits.reshape(len(bits), -1) @ price + STEPS * table.fixed_per_step


def measure(image_generator: str, accounting: str, schedules: int, repeats: int) -> dict[str, object]:
    """One row of the table."""
    start = time.perf_counter()
    table = macs_table(find_architecture(image_generator), accounting)
    table_ms = 1e3 * (time.perf_counter() - start)
    recompute = np.random.default_rng(0).random((schedules, STEPS, len(table.sites))) < 0.5
    row = {
        "image_generator": image_generator,
        "accounting": accounting,
        "schedules": schedules,
        "bits": STEPS * len(table.sites),
        "first_table_ms": table_ms,
        "price_ms": milliseconds(lambda: table.price(recompute), repeats),
    }
    if accounting == "linear":
        assert (table.price(recompute) == multiply_out(table, recompute)).all()
        row["multiply_out_ms"] = milliseconds(lambda: multiply_out(table, recompute), repeats)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedules", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks/cost.json"))
    args = parser.parse_args()
    rows = [
        measure(name, accounting, args.schedules, args.repeats)
        for name in ("PixArtAlphaImageGenerator", "FluxImageGenerator")
        for accounting in ("linear", "full")
    ]
    print(f"{'generator':28}{'accounting':12}{'bits':>6}{'price ms':>10}{'multiply out ms':>17}{'first table ms':>16}")
    for row in rows:
        plain = f"{row['multiply_out_ms']:.1f}" if "multiply_out_ms" in row else ""
        print(
            f"{row['image_generator']:28}{row['accounting']:12}{row['bits']:6}{row['price_ms']:10.1f}{plain:>17}"
            f"{row['first_table_ms']:16.0f}"
        )
    result = {
        "goal_ms": {"bits": 1680, "price_ms": 50},
        "machine": platform.processor() or platform.machine(),
        "rows": rows,
    }
    write_atomic(args.output, json.dumps(result, indent=2) + "\n")
    print(f"written to {args.output}")


if __name__ == "__main__":
    main()
