"""How long it takes to enable a front, and to switch between its schedules. No weights: nothing is computed.

python benchmarks/switching.py [--switches 1000] [--output build/benchmarks/switching.json]
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # one core: read once, by the first import of numpy or torch

import argparse
import json
import platform
import time
from itertools import cycle
from pathlib import Path
from statistics import median

import ecad
from ecad.cost import find_architecture
from ecad.cost.measure import meta_denoiser
from ecad.schedules import heuristics
from ecad.schedules.front import Point
from ecad.sites.discovery import discover
from ecad.sites.names import DENOISER_SITES, Sites
from ecad.utils.files import write_atomic

STEPS, SCHEDULES = 50, 12


def front_of(sites: Sites) -> ecad.Front:
    """Whole steps at even distances, forecast."""
    made = [heuristics.every_n(sites, STEPS, n).replace(forecast=True) for n in range(1, SCHEDULES + 1)]
    return ecad.Front("every n", [Point(one, 1 / n, -float(n)) for n, one in enumerate(made, start=1)])


def measure(image_generator: str, whole: bool, switches: int) -> dict[str, object]:
    """One row of the table."""
    denoiser = meta_denoiser(find_architecture(image_generator))
    sites = DENOISER_SITES if whole else tuple((site.block, site.component) for site in discover(denoiser))
    front = front_of(sites)
    start = time.perf_counter()
    run = ecad.enable_cache(denoiser, front, speedup=1)
    enabled = time.perf_counter() - start
    milliseconds = []
    for n in range(1, SCHEDULES + 1):  # the first time, a schedule is also checked against the denoiser
        start = time.perf_counter()
        run.switch(speedup=n)
        milliseconds.append(1e3 * (time.perf_counter() - start))
    first = max(milliseconds)
    milliseconds = []
    for _, n in zip(range(switches), cycle([*range(1, SCHEDULES + 1), None]), strict=False):
        start = time.perf_counter()
        run.switch(speedup=n)
        milliseconds.append(1e3 * (time.perf_counter() - start))
    run.disable()
    return {
        "image_generator": image_generator,
        "sites": len(sites),
        "enable_ms": 1e3 * enabled,
        "first_switch_ms": first,
        "switch_ms": median(milliseconds),
        "slowest_switch_ms": max(milliseconds),
    }


def main() -> None:
    """Parse the arguments, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--switches", type=int, default=1000)
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks/switching.json"))
    flags = parser.parse_args()
    names = "PixArtAlphaImageGenerator", "FluxImageGenerator"
    rows = [measure(name, whole, flags.switches) for name in names for whole in (False, True)]
    print(f"| model | sites | enable {SCHEDULES} schedules, ms | first switch, ms | switch, ms | slowest, ms |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for row in rows:
        print(
            "| " + " | ".join(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()), "|"
        )
    about = {
        "steps": STEPS,
        "schedules": SCHEDULES,
        "machine": platform.processor(),
        "python": platform.python_version(),
    }
    write_atomic(flags.output, json.dumps({**about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
