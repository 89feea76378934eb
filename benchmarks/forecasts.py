"""Compares ways to replace whole steps: reuse the output, extrapolate it, or extrapolate with fitted coefficients.

python benchmarks/forecasts.py [--generator EmojiImageGenerator] [--steps 20] [--prompts 16]

The steps are evenly spaced, or chosen by dynamic programming from the probes of eight search prompts, in the two ways
of a search. PSNR is relative to the uncached images of held-out prompts.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ecad import builtin
from ecad.calibration.step_choice import best_forecasts
from ecad.genetic import LocalEvaluator, Problem
from ecad.genetic.algorithms.whole_steps import best_steps, image_error_weights, probes
from ecad.genetic.evaluation.evaluator import evaluate
from ecad.genetic.evaluation.image_evaluator import evaluator_of
from ecad.genetic.evaluation.problems import problem_of
from ecad.image_generators import get_image_generator
from ecad.prompts import Prompt
from ecad.schedules import CacheSchedule
from ecad.utils.console import bar, console
from ecad.utils.files import write_atomic

SEARCHED = 8
# Fractions of all steps.
SHARES = (0.7, 0.6, 0.5, 0.4, 0.35, 0.3, 0.25, 0.2)
EVERY = (2, 3, 4, 5, 6)
COLUMNS = ("repeated", "in a line", "fitted")


def choices(problem: Problem, evaluator: LocalEvaluator, products: np.ndarray) -> Iterator[tuple[str, Sequence[int]]]:
    """The name of each row of the table, and the steps that compute."""
    steps = problem.shape[0]
    quality = evaluate(evaluator, [problem.schedule(bits, "probe") for bits in probes(problem)]).mean(axis=1)
    errors = 10 ** (-quality / 10)
    fitting = {len(places): places for places in best_forecasts(products, image_error_weights(products, errors))}
    for count in dict.fromkeys(round(share * steps) for share in SHARES):
        if 0 < count < steps:
            yield f"{count}, as repeated", best_steps(errors, count)
            yield f"{count}, as fitted", fitting[count]
    for n in EVERY:
        if n < steps:
            yield f"every {n}", range(0, steps, n)


def ways(problem: Problem, computed: Sequence[int], products: np.ndarray) -> list[CacheSchedule]:
    """The schedules of `COLUMNS`."""
    bits = np.zeros(problem.shape, dtype=bool)
    bits[list(computed)] = True
    repeated = problem.template.replace(recompute=bits)
    line = repeated.replace(forecast=True)
    return [repeated, line, line.replace(output_products=products)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", default="EmojiImageGenerator")
    parser.add_argument("--steps", type=int, help="denoising steps; the generator's own by default")
    parser.add_argument("--prompts", type=int, default=16, help="held-out prompts")
    parser.add_argument("--output", type=Path, help="build/benchmarks/forecasts-GENERATOR-STEPS.json by default")
    args = parser.parse_args()
    generator = get_image_generator(args.generator)
    generator = replace(generator, steps=args.steps or generator.steps)
    problem = problem_of(generator)

    def judge(kind: str, count: int, seed: int) -> LocalEvaluator:
        prompts = [Prompt(f"{i:04d}", text) for i, text in enumerate(builtin.prompts(kind)[:count])]
        return evaluator_of(generator, prompts, [seed])

    searched, held_out = judge("search", SEARCHED, 0), judge("held_out", args.prompts, 1_000_000)
    outputs = searched.outputs()
    assert outputs is not None
    products = outputs.products
    rows = list(choices(problem, searched, products))
    found = {}
    for name, computed in bar(rows, "schedules"):
        quality = evaluate(held_out, ways(problem, computed, products)).mean(axis=1)
        found[name] = {"steps": list(computed), **dict(zip(COLUMNS, quality.tolist(), strict=True))}
    console.print(f"| computed steps | {' | '.join(COLUMNS)} |", soft_wrap=True)
    for name, row in found.items():
        console.print(f"| {name} | {' | '.join(f'{row[column]:.1f}' for column in COLUMNS)} |", soft_wrap=True)
    output = args.output or Path(f"build/benchmarks/forecasts-{args.generator}-{generator.steps}.json")
    result = {"generator": args.generator, "weights": generator.fingerprint(), "prompts": args.prompts, "rows": found}
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(output, json.dumps(result, indent=1) + "\n")
    print(f"written to {output}")


if __name__ == "__main__":
    main()
