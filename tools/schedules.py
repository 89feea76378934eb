"""Fill schedules/: calibrated fronts of the built-in models, and hand-made schedules for the paper's models.

python tools/schedules.py [--max-images N] [--output schedules] [GENERATOR ...]
python tools/schedules.py --demo FOLDER

A front is calibrated with 8 prompts, improved by moving steps within the budget of images, and scored on 24
held-out prompts. Its schedules are named by their MAC reduction. `every_n.json` beside them has the results of
computing every n-th step on the same held-out prompts. `demo.json` has those of the schedules that `ecad demo` found,
whose folder --demo names.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.progress import Progress

from ecad import builtin
from ecad.calibration.of_generator import HELD_OUT_SEED, calibrated_front
from ecad.cost import count_macs, find_architecture
from ecad.cost.macs import macs_table
from ecad.image_generators import ImageGenerator, get_image_generator
from ecad.quality import get_scorer, mean_interval
from ecad.quality.video import by_frame
from ecad.schedules import CacheSchedule, heuristics
from ecad.schedules import json_values as plain
from ecad.schedules.front import Front
from ecad.schedules.provenance import Interval, made_for
from ecad.schedules.sharing import save_folder
from ecad.utils.console import stderr
from ecad.utils.files import write_atomic

FOLDER = Path("schedules")
SPEEDUPS = (1.5, 2, 2.5, 2.75, 3, 4, 5)
PROMPTS, HELD_OUT, SEED = 8, 24, 0
EVERY = (2, 3, 4, 5)
DEMO = "EmojiImageGenerator"
HAND_MADE = {"PixArtAlphaImageGenerator": 20, "PixArtSigmaImageGenerator": 20, "FluxImageGenerator": 20}


def calibrated(name: str, max_images: float | None, output: Path) -> None:
    """Write one folder per schedule of the front, the front, and the results of every n-th step."""
    generator, held_out = get_image_generator(name, device="cpu"), builtin.prompts("held_out", name)[:HELD_OUT]
    with Progress(console=stderr) as progress:
        task = progress.add_task(name, total=1.0)
        front = calibrated_front(
            generator,
            builtin.prompts("search", name)[:PROMPTS],
            held_out,
            seed=SEED,
            speedups=SPEEDUPS,
            max_images=max_images,
            on_progress=lambda done: progress.update(task, completed=done),
        )
    write_front(judged(front, generator, held_out), name, output)
    sites = macs_table(generator.architecture).sites
    every_n = [heuristics.every_n(sites, generator.steps, n) for n in EVERY]
    write_atomic(output / name / "every_n.json", json.dumps(scored(generator, held_out, every_n), indent=1) + "\n")


def judged(front: Front, generator: ImageGenerator, prompts: list[str]) -> Front:
    """The front with the judge's scores on the held-out prompts, a second opinion beside similarity."""
    embeds, judge = generator.encode(prompts), by_frame(get_scorer("judge"), generator.architecture.frames)
    seeds, points = range(HELD_OUT_SEED, HELD_OUT_SEED + len(prompts)), []
    for point in front.points:
        scores = judge.score(generator.generate(embeds, seeds, point.schedule), prompts, None)
        held_out = {**point.held_out, "judge": Interval(float(scores.mean()), *mean_interval(scores))}
        provenance, _ = made_for(point.schedule.attributes)
        assert provenance is not None
        told = replace(provenance, held_out=held_out).to_json()
        schedule = point.schedule.replace(attributes={**plain.thaw(point.schedule.attributes), "provenance": told})
        points.append(replace(point, schedule=schedule, held_out=held_out))
    return replace(front, points=points)


def write_front(front: Front, name: str, output: Path) -> None:
    """Write one folder per schedule, and the front."""
    if (output / name).exists():
        shutil.rmtree(output / name)
    for point in front.points:
        times = f"{point.speedup:.3g}x"
        share(point.schedule.replace(name=f"{name} {times}"), name, times, output)
    front.save(output / name / "front.json")


def compare_with_demo(folder: Path, output: Path) -> None:
    """Write the results of what a demo found, on the held-out prompts of the calibrated schedules."""
    generator, held_out = get_image_generator(DEMO, device="cpu"), builtin.prompts("held_out")[:HELD_OUT]
    files = sorted((folder / "schedules").glob("found-*.json"))
    found = [CacheSchedule.load(file).replace(name=file.stem) for file in files]
    write_atomic(output / DEMO / "demo.json", json.dumps(scored(generator, held_out, found), indent=1) + "\n")


def scored(
    generator: ImageGenerator, prompts: list[str], schedules: Sequence[CacheSchedule]
) -> dict[str, dict[str, float]]:
    """MAC reduction and mean PSNR of each schedule."""
    table, embeds = macs_table(generator.architecture), generator.encode(prompts)
    seeds = range(HELD_OUT_SEED, HELD_OUT_SEED + len(prompts))
    uncached, found = heuristics.none(table.sites, generator.steps), {}
    references, psnr = generator.generate(embeds, seeds), by_frame(get_scorer("psnr"), generator.architecture.frames)
    for schedule in schedules:
        less = table.price(uncached.recompute, False) / table.price(schedule.recompute, schedule.forecast)
        scores = psnr.score(generator.generate(embeds, seeds, schedule), prompts, references)
        found[schedule.name] = {"fewer_macs": round(float(less), 3), "psnr": round(float(scores.mean()), 2)}
    return found


def hand_made(image_generator: str, steps: int, output: Path) -> None:
    """Every second and every third step."""
    sites = macs_table(find_architecture(image_generator)).sites
    for n in (2, 3):
        schedule = heuristics.every_n(sites, steps, n)
        macs = count_macs(schedule, image_generator)
        share(schedule.replace(metrics={"total_macs": macs}), image_generator, schedule.name, output)


def share(schedule: CacheSchedule, generator: str, name: str, output: Path) -> None:
    save_folder(schedule, output / generator / name, (FOLDER / generator / name).as_posix())
    print(output / generator / name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generators", nargs="*", default=builtin.GENERATORS, help="built-in models; all by default")
    parser.add_argument("--max-images", type=float)
    parser.add_argument("--output", type=Path, default=FOLDER)
    parser.add_argument("--demo", type=Path, help="folder that `ecad demo` wrote")
    args = parser.parse_args()
    if args.demo is not None:
        compare_with_demo(args.demo, args.output)
        raise SystemExit
    for name in args.generators:
        calibrated(name, args.max_images, args.output)
    for image_generator, steps in HAND_MADE.items():
        hand_made(image_generator, steps, args.output)
