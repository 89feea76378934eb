"""Differences between images of the built-in model that were generated in different batches, in grey levels (0 to 255).

python benchmarks/batches.py [--prompt-file coco.txt] [--images 16] [--output build/benchmarks/batches.json]
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # one core: read once, by the first import of numpy or torch

import argparse
import json
import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ecad.builtin import prompts
from ecad.cost.macs import macs_table
from ecad.image_generators import ImageGenerator, get_image_generator
from ecad.prompts import read_prompts
from ecad.prompts.embeds import PromptEmbeds
from ecad.schedules import CacheSchedule, heuristics
from ecad.utils.files import write_atomic


def make(
    generator: ImageGenerator, embeds: PromptEmbeds, schedule: CacheSchedule, order: Sequence[int], batch_size: int
) -> np.ndarray:
    """Generate images in a given order and batch size, and return them sorted; image i has seed i."""
    images = []
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        images.extend(generator.generate(embeds[batch], batch, schedule))
    return np.array(images)[np.argsort(order)].astype(int)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt-file", type=Path, help="one prompt per line; default: the built-in prompts")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks/batches.json"))
    args = parser.parse_args()
    texts = [p.text for p in read_prompts(args.prompt_file, "txt")] if args.prompt_file else prompts("search")
    generator = get_image_generator("EmojiImageGenerator", device="cpu")
    embeds = generator.encode(texts[: args.images])
    sites, count = macs_table(generator.architecture).sites, len(embeds)
    original = list(range(count))
    shuffled = np.random.default_rng(0).permutation(count).tolist()
    rows = []
    for n in (1, 3):
        schedule = heuristics.every_n(sites, generator.steps, n)
        reference = make(generator, embeds, schedule, original, count)
        for name, order, size in (
            ("repeated", original, count),
            ("another order", shuffled, count),
            ("other neighbours, a quarter", shuffled, count // 4),
            ("a quarter", original, count // 4),
            ("one at a time", original, 1),
        ):
            moved = np.abs(make(generator, embeds, schedule, order, size) - reference)
            rows.append(
                {
                    "schedule": f"every_{n}",
                    "batch": name,
                    "batch_size": size,
                    "most_levels": int(moved.max()),
                    "share_of_values_moved": float((moved > 0).mean()),
                }
            )
    print(f"{count} images; reference: batches of {count}")
    print(f"{'schedule':10}{'batch':30}{'size':>5}{'max levels':>13}{'values changed':>16}")
    for row in rows:
        print(
            f"{row['schedule']:10}{row['batch']:30}{row['batch_size']:5}{row['most_levels']:13}"
            f"{row['share_of_values_moved']:16.4%}"
        )
    result = {"images": count, "machine": platform.processor() or platform.machine(), "rows": rows}
    write_atomic(args.output, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
