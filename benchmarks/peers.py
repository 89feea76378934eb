"""Compares ecad with other caches: one model, and the same prompts, seeds, machine and process for every rival.

python benchmarks/peers.py [--steps 20] [--prompts 48] [--rivals REGEX] [--studies FOLDER ...] [--rounds 5]

Prompts are held out; rivals with a calibration use others. All images and times are kept in the output folder, so that
an interrupted run resumes, and one with more prompts, rivals or rounds of timing adds to it. `--rounds` is the total
number of rounds; `--rounds-only` measures times and makes no images, for an idle machine.
"""

from __future__ import annotations

import os

os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")

import argparse
import importlib.metadata
import json
import re
import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rivals.dp_cache import all_of_dp_cache
from rivals.easy_cache import all_of_easy_cache
from rivals.figures import Scorer, areas, compared, is_first, leads_by_study, row_of, verdicts
from rivals.in_cache_dit import all_of_cache_dit
from rivals.in_diffusers import all_of_diffusers
from rivals.markdown import page
from rivals.measure import load_images, machine, make_images, time_rounds
from rivals.samplers import all_of_samplers
from rivals.schedules import every_n, fewer_steps, of_fronts, of_studies, tgate
from rivals.setting import Calibration, Setting, of_schedule
from rivals.smooth_cache import all_of_smooth_cache
from rivals.spectrum import all_of_spectrum
from rivals.table import comparison_table, save_plot, studies_table, verdict_table
from rivals.tea_cache import all_of_tea_cache

from ecad import builtin
from ecad.commands.progress import search_progress
from ecad.errors import EcadError
from ecad.genetic import Problem, Study
from ecad.genetic.algorithms.spaced_steps import heuristic_schedules
from ecad.genetic.evaluation.image_evaluator import evaluator_of
from ecad.genetic.evaluation.problems import problem_of
from ecad.genetic.search import search
from ecad.image_generators import ImageGenerator, get_image_generator
from ecad.prompts import Prompt
from ecad.quality.fidelity import Lpips
from ecad.schedules import CacheSchedule
from ecad.schedules.front import Front
from ecad.utils.console import bar, console
from ecad.utils.files import write_atomic

CALIBRATION_PROMPTS = 8
# Different from the seeds of calibration and search, and from each other.
SEED, REFERENCE_SEED = 2_000_000, 3_000_000
UNCACHED = Setting("uncached", "all steps")
REFERENCE = Setting("uncached", "all steps, other seeds")
OWN_SEARCH = {"fast": {"generations": 20}, "paper": {"generations": 20, "population_size": 24}}
# With few steps, scores vary more between prompts.
OWN_PROMPTS = 16


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", default="EmojiImageGenerator")
    parser.add_argument("--steps", type=int, help="denoising steps; the generator's own by default")
    parser.add_argument("--prompts", type=int, default=48)
    parser.add_argument(
        "--batch", type=int, default=8, help="batch size; rivals that decide at run time decide for a batch"
    )
    parser.add_argument("--rivals", default="", help="regular expression: only rivals and settings that match")
    parser.add_argument("--studies", type=Path, nargs="*", default=[], help="finished studies; default: a short search")
    parser.add_argument(
        "--fronts", type=Path, nargs="*", default=[], help="front.json of optimize or calibrate; no search"
    )
    parser.add_argument("--search", nargs="*", default=["fast"], choices=list(OWN_SEARCH), help="without --studies")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of timing, in total")
    parser.add_argument("--rounds-only", action="store_true", help="measure times, make no images")
    parser.add_argument("--output", type=Path, help="build/benchmarks/peers/GENERATOR-STEPS by default")
    return parser.parse_args()


@dataclass(frozen=True)
class Comparison:
    """The settings that all rivals share."""

    generator: ImageGenerator
    steps: int
    prompts: list[str]
    seeds: list[int]
    batch: int
    folder: Path

    def make(self, settings: list[Setting], seeds: list[int], label: str) -> dict[str, str]:
        """Make the images of all settings; returns key -> reason for settings that failed."""
        progress = partial(bar, label=label)
        return make_images(self.generator, settings, self.prompts, seeds, self.steps, self.batch, self.images, progress)

    def load(self, setting: Setting) -> dict[str, np.ndarray] | None:
        return load_images(self.images, setting, len(self.prompts), self.batch)

    def time(self, settings: list[Setting], rounds: int) -> dict[str, np.ndarray]:
        """Times of one batch, as `time_rounds` returns them."""
        part, say = slice(self.batch), console.print
        batch = self.prompts[part], self.seeds[part], self.steps
        return time_rounds(self.generator, UNCACHED, settings, *batch, rounds, self.folder / "times.json", say)

    @property
    def images(self) -> Path:
        """The folder of images; other weights have another folder."""
        return self.folder / "images" / self.generator.fingerprint()


def open_studies(folders: Iterable[Path], problem: Problem, generator: ImageGenerator, args: Any) -> list[Study]:
    """Open the given studies, or those of a short search; with fronts, only what is given."""
    if folders or args.fronts:
        return [Study.open(folder) for folder in folders]
    found = []
    for mode in args.search:
        prompts = [
            Prompt(f"{i:04d}", text) for i, text in enumerate(builtin.prompts("search", generator.name)[:OWN_PROMPTS])
        ]
        evaluator = evaluator_of(generator, prompts, [0], "psnr", args.batch)
        settings = OWN_SEARCH[mode]
        initial = heuristic_schedules(problem, settings["population_size"]) if mode == "paper" else []
        searched = replace(problem, forecast="either" if mode == "fast" else "never")
        folder = args.output / f"search-{mode}"
        with search_progress() as show:
            found.append(search(searched, evaluator, folder, mode=mode, initial=initial, on_progress=show, **settings))
    return found


def all_settings(
    calibration: Calibration, problem: Problem, studies: list[Study], fronts: list[Front]
) -> list[Setting]:
    """All rivals at all settings."""
    return [
        *fewer_steps(calibration.steps),
        *every_n(problem),
        *tgate(problem),
        *all_of_diffusers(calibration),
        *all_of_cache_dit(calibration),
        *all_of_smooth_cache(calibration, problem),
        *all_of_dp_cache(calibration),
        *all_of_tea_cache(calibration),
        *all_of_easy_cache(calibration),
        *all_of_spectrum(calibration),
        *all_of_samplers(calibration),
        *of_studies(studies, problem),
        *of_fronts(fronts, problem),
    ]


def nothing_computed(problem: Problem) -> Setting:
    """The reference point of hypervolumes: everything is reused after the first step."""
    bits = np.zeros(problem.shape, dtype=bool)
    return of_schedule("corner", "all reused", CacheSchedule(bits, problem.template.sites, name="corner"), {})


def with_times(rows: list[dict[str, Any]], times: Mapping[str, np.ndarray]) -> None:
    """Add to the rows of the table the speed-up over uncached in all rounds, and the median."""
    for row in rows:
        if (measured := times.get(row["key"])) is not None:
            row["seconds"], row["uncached_seconds"] = measured.T.tolist()
            row["speed_ups"] = (measured[:, 1] / measured[:, 0]).tolist()
            row["speed_up"] = float(np.median(row["speed_ups"]))


def lpips_or_reason() -> tuple[Any, str | None]:
    try:
        return Lpips(), None
    except EcadError:
        return None, "torchmetrics or AlexNet's weights were not found"


def rows_of(comparison: Comparison, settings: list[Setting], corner: Setting) -> tuple[dict[str, Any], list[Any], Any]:
    """Score all existing images.

    Returns:
        facts about the uncached images and the corner, the rows of the table, and scores by image.

    Raises:
        EcadError: images of rivals or uncached images are missing.
    """
    uncached, reference, worst = (comparison.load(setting) for setting in (UNCACHED, REFERENCE, corner))
    if uncached is None or reference is None or worst is None:
        raise EcadError(f"{comparison.folder}: no uncached images here; run without --rounds-only first")
    lpips, no_lpips = lpips_or_reason()
    scorer = Scorer(
        comparison.prompts, uncached["images"], reference["images"], lpips, comparison.generator.architecture.frames
    )
    loaded = [(setting, found) for setting in settings if (found := comparison.load(setting)) is not None]
    if not loaded:
        raise EcadError(f"{comparison.folder}: no images of a rival here; check --rivals")
    rows = [row_of(setting, found, scorer, uncached) for setting, found in bar(loaded, "scores")]
    values = {row["key"]: row.pop("values") for row in rows}
    plain = row_of(UNCACHED, uncached, scorer, uncached)
    facts = {
        "uncached": {name: plain[name] for name in ("macs", "peak_bytes", "scores")},
        "corner": {score: float(scorer.scores(worst["images"])[score].mean()) for score in compared(rows)},
        "without_lpips": no_lpips,
    }
    return facts, rows, values


def report(
    comparison: Comparison, settings: list[Setting], missing: dict[str, str], corner: Setting, rounds: int
) -> None:
    """Score and time all existing images, print and plot the results, and write the numbers."""
    facts, rows, values = rows_of(comparison, settings, corner)
    timed = [s for s in settings if s.key in values and is_first(s.rival)]
    times = comparison.time(timed, rounds)
    with_times(rows, times)
    standing = {"MACs": (verdicts(rows, values), areas(rows, facts["corner"]))}
    if times:
        by_time = [{**row, "cost": 1 / row["speed_up"]} for row in rows if "speed_up" in row]
        standing["time"] = verdicts(by_time, values), areas(by_time, facts["corner"])
    title = f"{comparison.generator.name}, {comparison.steps} steps, {len(comparison.prompts)} held-out prompts"
    console.print(comparison_table(rows, missing, title))
    for cost, (found, area) in standing.items():
        for score in compared(rows):
            console.print(verdict_table(found, area, score, cost))
    by_study = {score: leads_by_study(rows, values, score) for score in compared(rows)}
    if len(by_study["psnr"]) > 1:
        for score, leads in by_study.items():
            console.print(studies_table(leads, standing["MACs"][1], score))
    result = {
        "generator": comparison.generator.name,
        "weights": comparison.generator.fingerprint(),
        "steps": comparison.steps,
        "prompts": comparison.prompts,
        "seeds": comparison.seeds,
        "batch": comparison.batch,
        "versions": versions(),
        "machine": machine() | {"load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None},
        **facts,
        "rows": rows,
        "not_applicable": missing,
        "verdicts": {cost: found for cost, (found, _) in standing.items()},
        "hypervolume": {cost: area for cost, (_, area) in standing.items()},
        "by_study": by_study,
    }
    by_image = {key: {name: score.tolist() for name, score in scores.items()} for key, scores in values.items()}
    write_atomic(comparison.folder / "values.json", json.dumps(by_image) + "\n")
    write_atomic(comparison.folder / "peers.json", json.dumps(result, indent=1) + "\n")
    write_atomic(comparison.folder / "peers.md", page(result))
    save_plot(rows, title, comparison.folder / "peers.png")
    print(f"written to {comparison.folder}")


def versions() -> dict[str, str]:
    found = {}
    for package in ("ecad", "torch", "diffusers", "transformers", "cache-dit", "torchmetrics", "numpy"):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def main() -> None:
    args = arguments()
    generator = get_image_generator(args.generator)
    steps = args.steps or generator.steps
    generator = replace(generator, steps=steps)
    args.output = args.output or Path("build/benchmarks/peers") / f"{args.generator}-{steps}"
    prompts = builtin.prompts("held_out", args.generator)[: args.prompts]
    seeds = [SEED + i for i in range(len(prompts))]
    comparison = Comparison(generator, steps, prompts, seeds, args.batch, args.output)
    problem = problem_of(generator)
    calibration = Calibration(generator, tuple(builtin.prompts("search", args.generator)[-CALIBRATION_PROMPTS:]), steps)
    with ExitStack() as stack:
        studies = open_studies(args.studies, problem, generator, args)
        for study in studies:
            stack.callback(study.close)
        settings = all_settings(calibration, problem, studies, [Front.load(file) for file in args.fronts])
    settings = [s for s in settings if re.search(args.rivals, f"{s.rival} {s.name}")]
    missing = {f"{s.rival} ({s.name})": s.unusable for s in settings if s.unusable}
    settings = [s for s in settings if not s.unusable]
    corner = nothing_computed(problem)
    if not args.rounds_only:
        comparison.make([REFERENCE], [REFERENCE_SEED + i for i in range(len(prompts))], "reference")
        failed = comparison.make([UNCACHED, corner, *settings], seeds, "images")
        missing |= {f"{s.rival} ({s.name})": f"failed: {failed[s.key]}" for s in settings if s.key in failed}
    report(comparison, settings, missing, corner, args.rounds)


if __name__ == "__main__":
    try:
        main()
    except EcadError as error:
        sys.exit(f"peers: {error}")
