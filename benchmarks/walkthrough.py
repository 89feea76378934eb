"""COCO captions to embeddings to images with the built-in model: images per second, and the time outside the denoiser.

python benchmarks/walkthrough.py --prompt-file coco.txt [--captions 3000] [--batch-size 32] [--every 3]
                                 [--output build/benchmarks/walkthrough.json]
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # one core: read once, by the first import of numpy or torch

import argparse
import json
import platform
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ecad.builtin import prompts
from ecad.cost.macs import macs_table
from ecad.image_generators import get_image_generator
from ecad.jobs.encode import embed, embedding_settings, megabatches, num_shards, numbered
from ecad.jobs.generate import cut_batches, job_of, make_images
from ecad.prompts import Prompt, read_prompts
from ecad.prompts.store import find_stored, stores_to_write
from ecad.schedules import heuristics
from ecad.utils.console import bar
from ecad.utils.files import write_atomic

GENERATOR = "EmojiImageGenerator"


class Stopwatch:
    """Wraps a function and adds up the seconds spent in it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.seconds = function, 0.0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        begin = time.perf_counter()
        try:
            return self.function(*args, **kwargs)
        finally:
            self.seconds += time.perf_counter() - begin


def walk(captions: list[Prompt], batch_size: int, every: int, folder: Path) -> dict[str, object]:
    """Encode the captions and make an image of each under a schedule; returns the times."""
    folders, output_dir = megabatches(numbered(captions)), folder / "embeddings"
    encoder = get_image_generator(GENERATOR, device="cpu", only="text")
    begin = time.perf_counter()
    with stores_to_write(output_dir, folders, embedding_settings(encoder), 100) as stores:
        list(bar(embed(encoder, output_dir, stores), "encoding", total=num_shards(stores)))
    encoding = time.perf_counter() - begin
    size = sum(file.stat().st_size for file in (folder / "embeddings").rglob("*.*"))

    generator = get_image_generator(GENERATOR, device="cpu", only="images")
    sites = macs_table(generator.architecture).sites
    job = job_of(generator, heuristics.every_n(sites, generator.steps, every), folder / "images" / f"every_{every}")
    denoiser, vae = generator.pipe.transformer, generator.pipe.vae
    denoising = denoiser.forward = Stopwatch(denoiser.forward)
    decoding = vae.decode = Stopwatch(vae.decode)
    begin = time.perf_counter()
    batches = cut_batches(find_stored(folder / "embeddings"), [0], batch_size)
    list(bar(make_images(generator, [job], batches, folder / "images"), "generating", total=len(batches)))
    seconds = time.perf_counter() - begin
    count = len(list((folder / "images").rglob("*.png")))
    assert count == len(captions)
    return {
        "captions": count,
        "batch_size": batch_size,
        "schedule": f"every_{every}",
        "prompts_per_second": count / encoding,
        "embedding_bytes_per_prompt": size / count,
        "images_per_second": count / seconds,
        "share_outside_denoiser": 1 - denoising.seconds / seconds,
        "share_decoding": decoding.seconds / seconds,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "machine": platform.processor() or platform.machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt-file", type=Path, help="captions, one per line; default: the built-in prompts")
    parser.add_argument("--captions", type=int, default=3000, help="number of captions, from the start of the file")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument(
        "--every", type=int, default=3, help="the schedule recomputes at every n-th step; 1 is uncached"
    )
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks/walkthrough.json"))
    args = parser.parse_args()
    built_in = [Prompt(f"{i:04d}", text) for i, text in enumerate(prompts("search") + prompts("held_out"))]
    captions = (read_prompts(args.prompt_file, "txt") if args.prompt_file else built_in)[: args.captions]
    with tempfile.TemporaryDirectory() as temporary:
        row = walk(captions, args.batch_size, args.every, Path(temporary))
    for name, value in row.items():
        print(f"{name:28}{value:.3f}" if isinstance(value, float) else f"{name:28}{value}")
    print("goal: share_outside_denoiser at most 0.05 (decoding is a part of it)")
    write_atomic(args.output, json.dumps(row, indent=1) + "\n")


if __name__ == "__main__":
    main()
