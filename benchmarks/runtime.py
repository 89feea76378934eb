"""What the runtime costs and what it saves: a PixArt with random weights, on a CPU, bare and under schedules.

python benchmarks/runtime.py [--width 512] [--blocks 12] [--size 256] [--dtype float32] [--samples 7] [--output F]

All variants run by turns in one process, so that a slow minute of the machine falls on all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from functools import partial
from pathlib import Path
from statistics import median

import diffusers
import numpy as np
import torch

import ecad
from ecad.cost import Architecture, count_macs
from ecad.cost.latency import measure_interleaved, speedups
from ecad.files import write_atomic
from ecad.schedules import heuristics, pixart_sites

STEPS, TEXT_TOKENS, HEAD = 20, 120, 64


def describe(width: int, blocks: int, size: int) -> Architecture:
    """PixArt-alpha's architecture at another width and depth."""
    config = {
        "_class_name": "PixArtTransformer2DModel",
        "num_attention_heads": width // HEAD,
        "attention_head_dim": HEAD,
        "num_layers": blocks,
        "cross_attention_dim": width,
        "caption_channels": 4096,
        "sample_size": size // 8,
        "use_additional_conditions": False,
    }
    return Architecture("random PixArt", config, size, size, TEXT_TOKENS, guidance_pair=True, steps=STEPS)


def make_pipeline(architecture: Architecture, dtype: torch.dtype) -> diffusers.DiffusionPipeline:
    """A pipeline without text encoder and VAE, which no schedule touches."""
    torch.manual_seed(0)
    pipe = diffusers.PixArtAlphaPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=None,
        transformer=diffusers.PixArtTransformer2DModel.from_config(architecture.transformer).to(dtype).eval(),
        scheduler=diffusers.DPMSolverMultistepScheduler(),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def make_image(
    pipe: diffusers.DiffusionPipeline, call: dict, schedule: ecad.CacheSchedule | None, peaks: dict[str, int]
) -> None:
    generator = torch.Generator().manual_seed(0)
    if schedule is None:
        pipe(**call, generator=generator)
    else:
        with ecad.cached(pipe, schedule) as run:
            pipe(**call, generator=generator)
        peaks[schedule.name] = run.stats.peak_cached_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=512, help=f"of the transformer, a multiple of {HEAD}")
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("--size", type=int, default=256, help="pixels of the square image")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--samples", type=int, default=7)
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks/runtime.json"))
    args = parser.parse_args()

    architecture, dtype = describe(args.width, args.blocks, args.size), getattr(torch, args.dtype)
    sites = pixart_sites(args.blocks)
    random_bits = np.random.default_rng(0).random((STEPS, len(sites))) < 0.5
    all_ones = heuristics.none(sites, STEPS).replace(name="all ones")
    schedules = [
        all_ones,
        heuristics.every_n(sites, STEPS, 2).replace(name="every 2"),
        heuristics.every_n(sites, STEPS, 3).replace(name="every 3"),
        ecad.CacheSchedule(random_bits, sites, name="random half"),
    ]
    pipe = make_pipeline(architecture, dtype)
    call = {
        "negative_prompt": None,
        "prompt_embeds": torch.randn(1, TEXT_TOKENS, 4096, dtype=dtype),
        "negative_prompt_embeds": torch.randn(1, TEXT_TOKENS, 4096, dtype=dtype),
        "prompt_attention_mask": torch.ones(1, TEXT_TOKENS),
        "negative_prompt_attention_mask": torch.ones(1, TEXT_TOKENS),
        "height": args.size,
        "width": args.size,
        "num_inference_steps": STEPS,
        "use_resolution_binning": False,
        "output_type": "latent",
    }
    peaks: dict[str, int] = {}
    runs = {"bare": partial(make_image, pipe, call, None, peaks)}
    runs |= {schedule.name: partial(make_image, pipe, call, schedule, peaks) for schedule in schedules}
    times = measure_interleaved(runs, args.samples)
    faster = speedups(times, "bare")

    print(f"{'':14}{'s/image':>9}{'speed-up':>10}{'promised':>10}{'kept':>7}{'peak MB':>9}")
    print(f"{'bare':14}{median(times['bare']):9.3f}")
    rows = []
    for schedule in schedules:
        name = schedule.name
        promised = count_macs(all_ones, architecture) / count_macs(schedule, architecture)
        row = {"schedule": name, "seconds": median(times[name]), "speed_up": faster[name], "promised": promised}
        rows.append({**row, "kept_share": faster[name] / promised, "peak_cached_bytes": peaks[name]})
        print(f"{name:14}{row['seconds']:9.3f}{faster[name]:10.3f}{promised:10.3f}", end="")
        print(f"{faster[name] / promised:7.3f}{peaks[name] / 1e6:9.1f}")
    result = {
        "model": {"width": args.width, "blocks": args.blocks, "size": args.size, "dtype": args.dtype, "steps": STEPS},
        "machine": {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads()},
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "overhead_all_ones": 1 / faster["all ones"] - 1,
        "rows": rows,
        "seconds": times,
    }
    write_atomic(args.output, json.dumps(result, indent=2) + "\n")
    print(f"written to {args.output}")


if __name__ == "__main__":
    main()
