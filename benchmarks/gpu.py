"""Caching on a GPU: measured and theoretical speed-ups, rivals, memory, launches and compilation.

python benchmarks/gpu.py                        # everything, at most eight minutes on one 80 GB GPU
python benchmarks/gpu.py --quick                # a first look in 90 seconds
python benchmarks/gpu.py --device cpu --tiny    # every part on tiny models, to see that it runs

Full architectures with random weights and random text embeddings; needs no downloads, no network, no text encoder.
Runs from a bare checkout (PYTHONPATH=.) with torch 2.11 or newer, diffusers, numpy and pydantic; cache-dit is measured
if it is installed. Each part runs in its own process; a failing part is reported and the others continue. Parts
are MODEL/BATCH/MODE, the most important first. MODE is eager, blocks (compile_repeated_blocks), whole (compile), fused
(enable_cache with fuse_rows beside eager) or chain (the gated sums of a fully reused row: as operators, as a CUDA
graph, compiled).
`--only` and `--skip` take parts of these names. docs/gpu.md lists the expected numbers.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from gpu_speed.isolate import run_parts
from gpu_speed.measure import Options, Part, as_json
from gpu_speed.table import rows_of, text_of

from ecad._version import __version__
from ecad.utils.device import choose_device
from ecad.utils.files import write_atomic

PARTS = (
    Part("pixart-256", 1, "eager"),
    Part("flux-256", 1, "eager", 1.5),
    Part("flux-1024", 1, "eager", 3.0),
    Part("pixart-1024", 1, "eager"),
    Part("pixart-256", 1, "blocks", 2.0),
    Part("flux-1024", 1, "blocks", 3.0),
    Part("pixart-256", 1, "fused", 1.5),
    Part("pixart-1024", 1, "fused", 1.5),
    Part("flux-256", 1, "fused", 2.0),
    Part("wan-1.3b-33", 1, "fused", 2.0),
    Part("pixart-256", 1, "chain"),
    Part("sd35-medium-1024", 1, "eager", 1.5),
    Part("wan-1.3b-33", 1, "eager", 2.0),
    Part("pixart-256", 8, "eager"),
    Part("flux-256", 8, "eager", 1.5),
    Part("flux-1024", 8, "eager", 4.0),
    Part("pixart-1024", 8, "eager", 1.5),
    Part("sd35-medium-1024", 8, "eager", 2.0),
    Part("pixart-256", 1, "whole", 2.0),
    Part("flux-256", 1, "blocks", 1.5),
    Part("sd35-medium-1024", 1, "blocks", 1.5),
    Part("wan-1.3b-33", 1, "blocks", 1.5),
    Part("flux-1024", 1, "whole", 1.5),
    Part("wan-1.3b-81", 1, "eager", 1.5),
)
QUICK = PARTS[:3]
# Eight minutes, and ninety seconds, without the imports.
SECONDS, QUICK_SECONDS = 450.0, 75.0


def main() -> None:
    # Other ways to check for a GPU would initialize CUDA here, and no child process could use it.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # silences the profiler
    args = _arguments()
    options = _options(args)
    parts = [
        part
        for part in (QUICK if args.quick and not args.only else PARTS)
        if (not args.only or any(name in part.name for name in args.only))
        and not any(name in part.name for name in args.skip)
    ]
    seconds = args.seconds or (QUICK_SECONDS if args.quick else SECONDS)
    output = args.output or Path(f"build/benchmarks/gpu{'_tiny' if args.tiny else ''}.json")
    result: dict[str, Any] = {"environment": _environment(), "options": as_json(options), "seconds": seconds}
    findings: dict[str, list[dict[str, Any]]] = defaultdict(list)
    begun = time.monotonic()
    for part, finding in run_parts(parts, options, seconds):
        findings[part.name].append(finding)
        if finding["kind"] in ("done", "failed", "stopped", "left out"):
            print(text_of(part.name, findings[part.name]), flush=True)
        result["parts"] = {
            name: {"ended": found[-1]["kind"], "rows": rows_of(found), "findings": found}
            for name, found in findings.items()
        }
        result["took"] = time.monotonic() - begun
        write_atomic(output, json.dumps(result, indent=1) + "\n")
    print(f"{time.monotonic() - begun:.0f} of {seconds:.0f} seconds; written to {output}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the first three parts only, in 90 seconds")
    parser.add_argument("--device", default="auto", help="auto, cuda, cuda:1, cpu")
    parser.add_argument("--tiny", action="store_true", help="two narrow blocks of every model")
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), help="bfloat16; float32 on a CPU")
    parser.add_argument("--only", nargs="*", default=[], help="only parts with one of these in their name")
    parser.add_argument("--skip", nargs="*", default=[], help="skip parts with one of these in their name")
    parser.add_argument("--variants", nargs="*", help="measure only these and the bare model")
    parser.add_argument("--no-rivals", action="store_true", help="measure no other caches")
    parser.add_argument("--published", type=Path, help="folder that `ecad fetch published-schedules` filled")
    parser.add_argument("--rounds", type=int, default=5, help="maximum; fewer if the time limit ends before")
    parser.add_argument("--steps", type=int, help="denoising steps; default: 20, 12 or 6, as time allows")
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    parser.add_argument(
        "--seconds", type=float, help="time limit without the imports; default: 450, or 75 with --quick"
    )
    parser.add_argument("--list", action="store_true", help="print the names of all parts and stop")
    parser.add_argument("--output", type=Path, help="JSON file; default: build/benchmarks/gpu.json")
    args = parser.parse_args()
    if args.list:
        parser.exit(0, "\n".join(part.name for part in PARTS) + "\n")
    args.device = choose_device(args.device) if args.device in ("auto", "cpu") else args.device
    if args.device == "cpu" and not args.tiny:
        parser.error("full models need a GPU: add --tiny, or give a --device")
    if args.published is not None and not args.published.is_dir():
        parser.error(f"--published: {args.published} is no folder")
    return args


def _options(args: argparse.Namespace) -> Options:
    dtype = args.dtype or ("float32" if args.device == "cpu" else "bfloat16")
    return Options(
        args.device,
        getattr(torch, dtype),
        args.tiny,
        args.rounds,
        args.steps,
        args.backend,
        args.published,
        None if args.variants is None else tuple(args.variants),
        not args.no_rivals,
    )


def _environment() -> dict[str, Any]:
    names = ("torch", "diffusers", "numpy", "cache-dit", "triton")
    return {
        "ecad": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "versions": {name: _version(name) for name in names},
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
