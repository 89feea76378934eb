"""Held-out PSNR of calibrations with different budgets of images.

python benchmarks/calibration.py [--generator EmojiImageGenerator] [--budgets 2,4,8,8:150,16:600] [--seeds 0,1]
                                 [--held-out 24] [--output FILE]

A budget is a number of prompts, and after a colon the total number of images. Another seed uses other prompts
and other noise. Columns: prompts, images, seed, and the mean PSNR on held-out prompts for MAC reductions from 1.5 to 5.
MACs.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ecad import builtin
from ecad.calibration.of_generator import calibrated_front
from ecad.image_generators import ImageGenerator, get_image_generator
from ecad.schedules.front import Front
from ecad.utils.console import console
from ecad.utils.files import write_atomic

SPEEDUPS = (1.5, 2, 2.5, 3, 4, 5)
# Distance between the first prompts of consecutive seeds.
APART = 16


def budgets(text: str) -> list[tuple[int, float | None]]:
    """Parse budgets: numbers of prompts and images.

    >>> budgets("2,8:150")
    [(2, None), (8, 150.0)]
    """
    parts = [one.partition(":") for one in text.split(",")]
    return [(int(prompts), float(images) if images else None) for prompts, _, images in parts]


def run(generator: ImageGenerator, prompts: int, images: float | None, seed: int, held_out: list[str]) -> Front:
    texts = builtin.prompts("search", generator.name)
    first = seed * APART % len(texts)
    chosen = (texts[first:] + texts[:first])[:prompts]
    return calibrated_front(generator, chosen, held_out, seed=1000 * seed, speedups=SPEEDUPS, max_images=images)


def row(front: Front) -> dict[str, Any]:
    found: dict[str, Any] = {"images": front.provenance["images"]}
    for speedup in SPEEDUPS:
        point = next(p for p in front.points if p.schedule is front.pick(speedup=speedup))
        score = point.held_out["psnr"]
        found[f"{speedup:g}x"] = [score.mean, score.low, score.high]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", default="EmojiImageGenerator")
    parser.add_argument("--budgets", type=budgets, default=budgets("2,4,8,8:150,16:600"))
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--held-out", type=int, default=24, help="held-out prompts")
    parser.add_argument("--output", type=Path, help="build/benchmarks/calibration-GENERATOR.json by default")
    args = parser.parse_args()
    generator = get_image_generator(args.generator)
    held_out = builtin.prompts("held_out", args.generator)[: args.held_out]
    output = args.output or Path(f"build/benchmarks/calibration-{args.generator}.json")
    rows = []
    for prompts, images in args.budgets:
        for seed in map(int, args.seeds.split(",")):
            found = {"prompts": prompts, "max_images": images, "seed": seed}
            rows.append(found | row(run(generator, prompts, images, seed, held_out)))
            cells = [f"{rows[-1][f'{speedup:g}x'][0]:.1f}" for speedup in SPEEDUPS]
            console.print(f"| {prompts} | {rows[-1]['images']} | {seed} | {' | '.join(cells)} |", soft_wrap=True)
            result = {"generator": args.generator, "weights": generator.fingerprint(), "held_out": args.held_out}
            write_atomic(output, json.dumps(result | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
