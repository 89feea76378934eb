"""Cost and result of searches on the built-in model, with several seeds and held-out prompts.

python benchmarks/search_cost.py [--arms "paper|fast"] [--seeds 0,1,2,3,4] [--generator EmojiImageGenerator]
                                 [--output build/benchmarks/search_cost]

Every search is a study in the output folder, so that an interrupted run resumes, and a
second process may work on other arms or seeds at the same time. After some generations, the schedules that a search
would export (the best on its own prompts at or below each of twelve costs) are scored on held-out prompts. The
result of a search is their mean quality over the twelve costs: the area under its front, sampled evenly.
`regret.py` measures what is exported in the end, selected by validation prompts and with output weights.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from ecad import builtin
from ecad.commands.progress import search_progress
from ecad.errors import EcadError
from ecad.genetic import Evaluator, Problem, Store, Study
from ecad.genetic.algorithms.spaced_steps import heuristic_schedules
from ecad.genetic.algorithms.surrogate_search import Ingredients
from ecad.genetic.evaluation.evaluator import evaluate_each
from ecad.genetic.evaluation.image_evaluator import evaluator_of
from ecad.genetic.evaluation.problems import problem_of
from ecad.genetic.genes import Forecast
from ecad.genetic.search import search
from ecad.image_generators import get_image_generator
from ecad.prompts import Prompt
from ecad.utils.files import write_atomic
from ecad.utils.pareto import pareto

PAPER = {"mode": "paper", "population_size": 24}
FAST = {"mode": "fast"}
# The baseline, a tenth of the published search, with 100 images per candidate.
PAPER_IMAGES = 100


@dataclass(frozen=True)
class Arm:
    """A variant of the search.

    Args:
        settings: arguments of `ecad.search`.
        generations: number of generations.
        prompts: images per candidate.
        forecast: whether its schedules extrapolate: "never", "always" or "either".
        heuristics: whether it starts from hand-made schedules.
    """

    settings: Mapping[str, Any]
    generations: int
    prompts: int
    forecast: Forecast = "either"
    heuristics: bool = False


def without(**left_out: bool) -> Arm:
    return Arm({**FAST, "ingredients": Ingredients(**left_out)}, generations=10, prompts=2)


ARMS = {
    "paper": Arm(PAPER, generations=50, prompts=8, forecast="never", heuristics=True),
    "paper, random start": Arm(PAPER, generations=50, prompts=4, forecast="never"),
    "fast": Arm(FAST, generations=20, prompts=2),
    "fast, 1 prompt": Arm(FAST, generations=20, prompts=1),
    "fast, 4 prompts": Arm(FAST, generations=20, prompts=4),
    "fast, 8 prompts": Arm(FAST, generations=20, prompts=8),
    "fast, 16 prompts": Arm(FAST, generations=5, prompts=16),
    "fast, 96 prompts": Arm(FAST, generations=5, prompts=96),
    "no forecast": Arm(FAST, generations=20, prompts=2, forecast="never"),
    "all forecast": Arm(FAST, generations=20, prompts=2, forecast="always"),
    "no probes": without(probes=False),
    "no programming": without(programming=False),
    "no surrogate": without(surrogate=False),
}
CHECKPOINTS = (1, 2, 4, 9, 19, 49)
# Fractions of an uncached image's cost; the cheapest schedule, which reuses everything, is below the first.
BUDGETS = np.linspace(0.10, 0.65, 12)


def run_arm(arm: Arm, seed: int, folder: Path, problem: Problem, make: Any, held_out: Evaluator) -> list[dict]:
    """Search or resume; returns the held-out quality at the checkpoints."""
    problem = replace(problem, forecast=arm.forecast)
    texts = builtin.prompts("search")
    prompts = [Prompt(f"{i:04d}", text) for i, text in enumerate(texts[: arm.prompts])]
    seeds = range(seed, seed + -(-arm.prompts // len(texts)))
    initial = heuristic_schedules(problem, arm.settings["population_size"]) if arm.heuristics else []
    with search_progress() as on_progress:
        study = search(
            problem,
            make(prompts=prompts, seeds=seeds),
            folder,
            generations=arm.generations,
            seed=seed,
            initial=initial,
            on_progress=on_progress,
            **arm.settings,
        )
    study.close()
    numbers = [number for number in CHECKPOINTS if number < arm.generations]
    with Store.open(folder) as store:
        return [checkpoint(study, number, problem, held_out, store) for number in numbers]


def checkpoint(study: Study, number: int, problem: Problem, held_out: Evaluator, store: Store) -> dict:
    """The held-out quality of a study after a generation."""
    known = [candidate for candidate in study.candidates if candidate.generation <= number]
    cost, quality = np.array([c.cost for c in known]), np.array([c.quality for c in known])
    front = pareto(cost, quality)
    last = np.searchsorted(cost[front], BUDGETS * problem.uncached_cost, side="right") - 1
    chosen = [known[i] for i in front[np.unique(last[last >= 0])]]
    model = problem.template
    nothing = model.replace(recompute=np.zeros(problem.shape, dtype=bool), name="all reused")
    scores = list(evaluate_each(held_out, [nothing, *(c.schedule for c in chosen)], store))
    worst, *found = [float(score.mean()) for score in scores]
    return {
        "generation": number,
        "images": study.history[number].images,
        "seconds": study.history[number].seconds,
        "worst": worst,
        "chosen": [[c.cost / problem.uncached_cost, c.quality, q] for c, q in zip(chosen, found, strict=True)],
    }


def quality(row: dict) -> float:
    """The mean held-out quality over the budgets of the schedules that a checkpoint would export."""
    costs, _, found = np.array(row["chosen"]).T
    last = np.searchsorted(costs, BUDGETS, side="right") - 1
    return float(np.where(last >= 0, found[last], row["worst"]).mean())


def images_to_reach(rows: list[dict], goal: float) -> int | None:
    return next((row["images"] for row in rows if quality(row) >= goal), None)


def summarise(folder: Path) -> dict:
    """One table of all results so far, of this process and others."""
    runs: dict[str, dict[int, list[dict]]] = {}
    for file in sorted(folder.glob("*/result.json")):
        run = json.loads(file.read_text())
        runs.setdefault(run["arm"], {})[run["seed"]] = run["checkpoints"]
    goals = [quality(rows[-1]) for rows in runs.get("paper", {}).values()]
    goal = mean(goals) if goals else None
    baseline = ARMS["paper"]
    paper_images = baseline.generations * baseline.settings["population_size"] * PAPER_IMAGES
    print(f"{'':22}{'seeds':>6}{'images':>8}{'held-out quality, dB':>24}{'images to reach paper':>24}")
    table = []
    for name in (name for name in ARMS if name in runs):
        last = [rows[-1] for rows in runs[name].values()]
        found = [quality(row) for row in last]
        reached = [None if goal is None else images_to_reach(rows, goal) for rows in runs[name].values()]
        spread = stdev(found) if len(found) > 1 else float("nan")
        worst = None if None in reached else max(reached)
        row = {"arm": name, "seeds": len(found), "images": mean(r["images"] for r in last), "quality": mean(found)}
        table.append({**row, "spread": spread, "reached": reached})
        shown = f"{mean(found):.2f} ± {spread:.2f}"
        said = "not by all seeds" if worst is None else f"{worst} ({paper_images / worst:.0f}x fewer)"
        print(f"{name:22}{len(found):6}{row['images']:8.0f}{shown:>24}{said:>24}")
    print(
        f"fewer than {paper_images}: the baseline at {PAPER_IMAGES} images a candidate; here it had {baseline.prompts}"
    )
    return {"goal": goal, "paper_images": paper_images, "table": table, "runs": runs}


def plot(result: dict, file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5))
    for name, seeds in result["runs"].items():
        curves = list(seeds.values())
        length = min(map(len, curves))
        x = np.mean([[row["images"] for row in rows[:length]] for rows in curves], axis=0)
        y = np.array([[quality(row) for row in rows[:length]] for rows in curves])
        axes.plot(x, y.mean(axis=0), marker=".", label=name, linestyle="--" if name.startswith("paper") else "-")
        axes.fill_between(x, y.min(axis=0), y.max(axis=0), alpha=0.12)
    axes.set(xscale="log", xlabel="images generated", ylabel="PSNR on held-out prompts, mean over 12 budgets, dB")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(file, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", default="|".join(ARMS), help="separated by |")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--generator", default="EmojiImageGenerator", help="generators need different output folders")
    parser.add_argument("--held-out", type=int, default=16, help="held-out prompts that score the fronts")
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks/search_cost"))
    args = parser.parse_args()
    arms, seeds = args.arms.split("|"), [int(seed) for seed in args.seeds.split(",")]
    if unknown := [name for name in arms if name not in ARMS]:
        raise EcadError(f"arm {unknown[0]!r} is unknown: expected any of {' | '.join(ARMS)}")

    generator = get_image_generator(args.generator)
    problem, make = problem_of(generator), partial(evaluator_of, generator, quality="psnr", batch_size=8)
    texts = builtin.prompts("held_out")[: args.held_out]
    held_out = make(prompts=[Prompt(f"held_out_{i:04d}", text) for i, text in enumerate(texts)], seeds=[1_000_000])
    for seed in seeds:
        for name in arms:
            folder = args.output / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
            print(f"{name}, seed {seed}", flush=True)
            rows = run_arm(ARMS[name], seed, folder, problem, make, held_out)
            write_atomic(folder / "result.json", json.dumps({"arm": name, "seed": seed, "checkpoints": rows}) + "\n")
    result = summarise(args.output)
    result["weights"] = generator.fingerprint()
    write_atomic(args.output / "search_cost.json", json.dumps(result, indent=1) + "\n")
    plot(result, args.output / "search_cost.png")
    print(f"written to {args.output}")


if __name__ == "__main__":
    main()
