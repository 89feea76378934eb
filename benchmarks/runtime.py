"""What the runtime costs and saves on full-size blocks with random weights on a CPU: time, operators, bytes, memory.

python benchmarks/runtime.py [--model pixart|flux] [--dtype float32|bfloat16] [--samples 5] [--schedules F ...]

PixArt-XL/2 in full, or FLUX.1 at full width with 4 double and 8 single blocks; 256x256 pixels, the pipeline's own
loop without text encoder and VAE. All variants run by turns in one process, so that a slow minute of the machine falls
on all of them. "promised" is the ratio of MACs. What hooks on the components alone would leave is counted, not timed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import diffusers
import numpy as np
import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

import ecad
from ecad.cost import Architecture, count_macs, find_architecture
from ecad.cost.latency import measure_interleaved, speedups
from ecad.runtime.replay import recordings
from ecad.runtime.replay.facts import Unrecordable
from ecad.schedules import CacheSchedule, flux_sites, heuristics, pixart_sites
from ecad.utils.files import write_atomic

SIZE, FLUX_BLOCKS = 256, (4, 8)


def describe(model: str) -> Architecture:
    """The published architecture; FLUX with fewer blocks."""
    if model == "pixart":
        return find_architecture("PixArtAlphaImageGenerator")
    flux = find_architecture("FluxImageGenerator")
    config = {**flux.transformer, "num_layers": FLUX_BLOCKS[0], "num_single_layers": FLUX_BLOCKS[1]}
    return Architecture("FLUX.1, 4+8 blocks", config, SIZE, SIZE, flux.text_tokens, guidance_pair=False, steps=20)


def make_pipeline(architecture: Architecture, dtype: torch.dtype) -> diffusers.DiffusionPipeline:
    """A pipeline with random weights, without text encoders and VAE, which no schedule touches."""
    torch.manual_seed(0)
    name = architecture.transformer["_class_name"]
    parts: dict[str, Any] = {"tokenizer": None, "text_encoder": None, "vae": None}
    if name == "PixArtTransformer2DModel":
        make, scheduler = diffusers.PixArtAlphaPipeline, diffusers.DPMSolverMultistepScheduler()
    else:
        make, scheduler = diffusers.FluxPipeline, diffusers.FlowMatchEulerDiscreteScheduler()
        parts |= {"tokenizer_2": None, "text_encoder_2": None}
    with torch.device("meta"):
        transformer = getattr(diffusers, name).from_config(architecture.transformer)
    transformer = transformer.to(dtype).to_empty(device="cpu").eval()
    with torch.no_grad():
        for tensor in (*transformer.parameters(), *transformer.buffers()):
            tensor.uniform_(-0.02, 0.02)
    pipe = make(transformer=transformer, scheduler=scheduler, **parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def call_of(architecture: Architecture, dtype: torch.dtype) -> dict[str, Any]:
    """Arguments of the pipeline: random text embeddings, latents as the result."""
    tokens = architecture.text_tokens
    call = {"height": SIZE, "width": SIZE, "num_inference_steps": architecture.steps, "output_type": "latent"}
    call["prompt_embeds"] = torch.randn(1, tokens, 4096, dtype=dtype)
    if not architecture.guidance_pair:
        return call | {"pooled_prompt_embeds": torch.randn(1, 768, dtype=dtype), "guidance_scale": 5.0}
    masks = {"prompt_attention_mask": torch.ones(1, tokens), "negative_prompt_attention_mask": torch.ones(1, tokens)}
    negative = {"negative_prompt": None, "negative_prompt_embeds": torch.randn(1, tokens, 4096, dtype=dtype)}
    return call | masks | negative | {"use_resolution_binning": False}


def make_image(
    pipe: diffusers.DiffusionPipeline, call: dict[str, Any], schedule: CacheSchedule | None, peaks: dict[str, int]
) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    if schedule is None:
        return pipe(**call, generator=generator).images
    with ecad.cached(pipe, schedule) as run:
        latents = pipe(**call, generator=generator).images
        peaks[schedule.name] = run.stats.peak_cached_bytes
        peaks[f"{schedule.name}, predicted"] = run.memory()
    return latents


@contextmanager
def plain_hooks():
    """Run components under hooks and everything else as it is."""

    def refuse(*_: object) -> None:
        raise Unrecordable

    facts, recordings.Facts = recordings.Facts, refuse
    try:
        yield
    finally:
        recordings.Facts = facts


class Dispatched(TorchDispatchMode):
    """Counts operators and the bytes that they read and write; views move none."""

    def __init__(self) -> None:
        super().__init__()
        self.operators = self.kernels = self.moved = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.operators += 1
        if not any(returned.alias_info for returned in func._schema.returns):
            tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
            self.kernels += 1
            self.moved += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return result


def reused_step(pipe: diffusers.DiffusionPipeline, call: dict[str, Any], every_2: CacheSchedule) -> dict[str, int]:
    """What one denoiser forward dispatches when all of it is reused."""
    forwards: list[Dispatched] = []
    transformer, original = pipe.transformer, type(pipe.transformer).__call__

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        forwards.append(Dispatched())
        with forwards[-1]:
            return original(self, *args, **kwargs)

    type(transformer).__call__ = counted
    try:
        make_image(pipe, call, every_2, {})
    finally:
        type(transformer).__call__ = original
    last = forwards[3]
    return {"operators": last.operators, "kernels": last.kernels, "bytes": last.moved}


def keep_everything(pipe: diffusers.DiffusionPipeline, call: dict[str, Any], sites: Any) -> int:
    """Bytes if every output is kept: a second row reuses all of the first."""
    bits = np.array([[True] * len(sites), [False] * len(sites)])
    peaks: dict[str, int] = {}
    make_image(pipe, {**call, "num_inference_steps": 2}, CacheSchedule(bits, sites, name="all"), peaks)
    return peaks["all"]


def schedules_of(architecture: Architecture, files: list[Path]) -> list[CacheSchedule]:
    steps, flux = architecture.steps, not architecture.guidance_pair
    sites = flux_sites(*FLUX_BLOCKS) if flux else pixart_sites(28)
    chosen = [heuristics.none(sites, steps).replace(name="all ones")]
    chosen += [heuristics.every_n(sites, steps, n).replace(name=f"every {n}") for n in (2, 3)]
    loaded = [CacheSchedule.load(file) for file in files]
    return chosen + [schedule.resample(sites=sites) for schedule in loaded]


def report(title: str, rows: list[dict[str, Any]]) -> None:
    print(title)
    print(f"{'':34}{'s/image':>9}{'speed-up':>10}{'promised':>10}{'kept':>7}{'peak MB':>9}")
    for row in rows:
        print(f"{row['schedule'][:33]:34}{row['seconds']:9.2f}{row['speed_up']:10.3f}{row['promised']:10.3f}", end="")
        print(f"{row['speed_up'] / row['promised']:7.3f}{row['peak_cached_bytes'] / 1e6:9.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("pixart", "flux"), default="pixart")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="of each image; published schedules have 20")
    parser.add_argument("--schedules", type=Path, nargs="*", default=[], help="schedule files to measure too")
    parser.add_argument("--output", type=Path, help="build/benchmarks/runtime_MODEL_DTYPE.json by default")
    args = parser.parse_args()

    architecture, dtype = describe(args.model), getattr(torch, args.dtype)
    schedules = schedules_of(architecture, args.schedules)
    if args.steps != architecture.steps:
        schedules = [schedule.resample(steps=args.steps).replace(name=schedule.name) for schedule in schedules]
    pipe, call = make_pipeline(architecture, dtype), call_of(architecture, dtype) | {"num_inference_steps": args.steps}
    peaks: dict[str, int] = {}
    uncached = schedules[0]
    jobs: dict[str, Callable[[], torch.Tensor]] = {"bare": partial(make_image, pipe, call, None, peaks)}
    for schedule in schedules:
        jobs[schedule.name] = partial(make_image, pipe, call, schedule, peaks)
    every_2 = schedules[1]
    latents = jobs[every_2.name]()
    with plain_hooks():
        exact = torch.equal(latents, jobs[every_2.name]())
    times = measure_interleaved(jobs, args.samples)
    faster = speedups(times, "bare")

    fast = reused_step(pipe, call, every_2)
    with plain_hooks():
        plain = reused_step(pipe, call, every_2)
    rows = [
        {
            "schedule": schedule.name,
            "seconds": median(times[schedule.name]),
            "speed_up": faster[schedule.name],
            "promised": count_macs(uncached, architecture) / count_macs(schedule, architecture),
            "peak_cached_bytes": peaks[schedule.name],
            "predicted_bytes": peaks[f"{schedule.name}, predicted"],
        }
        for schedule in schedules
    ]
    everything = keep_everything(pipe, call, uncached.sites)
    report(
        f"{args.model} {args.dtype}, {args.steps} steps, {args.samples} samples; bare {median(times['bare']):.2f} s",
        rows,
    )
    shares = {name: fast[name] / plain[name] for name in fast}
    print("a fully reused forward, of what plain hooks leave: ", end="")
    print(", ".join(f"{name} {fast[name]:,} of {plain[name]:,} = {share:.3f}" for name, share in shares.items()))
    print(f"same bits as plain hooks: {exact}; keeping every output takes {everything / 1e6:.1f} MB")
    result = {
        "model": {"name": args.model, "size": SIZE, "dtype": args.dtype, "steps": args.steps},
        "machine": {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads()},
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "overhead_all_ones": 1 / faster["all ones"] - 1,
        "same_bits": exact,
        "bytes_of_every_output": everything,
        "reused_forward": {"here": fast, "plain_hooks": plain, "shares": shares},
        "rows": rows,
        "seconds": times,
    }
    output = args.output or Path(f"build/benchmarks/runtime_{args.model}_{args.dtype}.json")
    write_atomic(output, json.dumps(result, indent=2) + "\n")
    print(f"written to {output}")


if __name__ == "__main__":
    main()
