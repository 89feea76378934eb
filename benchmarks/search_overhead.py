"""The overhead of a search besides its images: 1,680 bits, 72 candidates per generation, simulated images.

python benchmarks/search_overhead.py [--generations 12] [--prompts 10] [--output build/benchmarks/search_overhead.json]

Everything else is real: plans, costs, the surrogate, the study's database and its schedule files.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from ecad.cost.architectures import find_architecture
from ecad.cost.macs import macs_table
from ecad.genetic import LocalEvaluator, Problem
from ecad.genetic.algorithms.surrogate import modelled_errors
from ecad.genetic.search import search
from ecad.prompts import Prompt
from ecad.schedules import heuristics, pixart_sites
from ecad.utils.files import write_atomic

POPULATION = 72


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generations", type=int, default=12)
    parser.add_argument("--prompts", type=int, default=10, help="images per candidate")
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks/search_overhead.json"))
    args = parser.parse_args()
    table = macs_table(find_architecture("PixArtAlphaImageGenerator"))
    step_errors = np.random.default_rng(0).random(19) + 0.3
    result = {}
    for mode, forecast in (("fast", "either"), ("paper", "never")):
        problem = Problem(heuristics.none(pixart_sites(28), 20), table.price, forecast=forecast)
        evaluator = LocalEvaluator(
            generate=lambda schedule, items: modelled_errors(schedule.recompute[None], step_errors).sum(),
            score=lambda error, items: np.full(len(items), -10 * np.log10(error + 1e-3)),
            scorer="psnr",
            prompts=[Prompt(f"{i:04d}", "x") for i in range(args.prompts)],
            seeds=[0],
            batch_size=args.prompts,
            decibels=True,
        )
        with tempfile.TemporaryDirectory() as folder:
            begun = time.process_time()
            study = search(
                problem, evaluator, folder, mode=mode, generations=args.generations, population_size=POPULATION
            )
            seconds = time.process_time() - begun
        images = study.history[-1].images
        each = seconds / images
        result[mode] = {"bits": 1680, "images": images, "seconds": seconds, "milliseconds_an_image": 1000 * each}
        print(
            f"{mode}: {seconds:.1f} s of processor time for {images} images, {1000 * each:.2f} ms per image;", end=" "
        )
        print(f"2% of the time if an image and its score take {each / 0.02:.3f} s")
    write_atomic(args.output, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
