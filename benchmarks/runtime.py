"""What the runtime costs and saves on full-size blocks with random weights on a CPU: time, operators, bytes, memory.

python benchmarks/runtime.py [--model pixart|flux|builtin] [--dtype float32|bfloat16] [--rounds 5] [--beside CHECKOUT]

PixArt-XL/2 in full, or FLUX.1 at full width with 4 double and 8 single blocks, at 256x256 pixels, both with random
weights; or the built-in PixArt. The pipeline's own loop makes latents from text embeddings, in one thread. Only the
pipeline's call is timed, by wall clock and by processor time. In each round every variant generates one image, so that
a slow minute of the machine affects all of them, and each is compared with the uncached image of its round. A schedule
is enabled anew for each image; of the built-in model there is a second image while it is kept enabled. `--beside` does
the same in another checkout of ecad, in turns with this one. "theoretical" is the speed-up by MACs, "fraction" how much
of it is measured. What hooks on the components alone would leave is counted, not timed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import ecad
from ecad import builtin
from ecad.cost import Architecture, count_macs, find_architecture
from ecad.schedules import CacheSchedule, flux_sites, heuristics, pixart_sites
from ecad.utils.files import write_atomic

SIZE, FLUX_BLOCKS = 256, (4, 8)
KEPT = ", kept enabled"
CLOCKS = ("processor", "wall")
HERE = "here"


def describe(model: str) -> Architecture:
    """The published architecture, FLUX with fewer blocks, or that of the built-in model."""
    if model != "flux":
        return find_architecture("PixArtAlphaImageGenerator" if model == "pixart" else "EmojiImageGenerator")
    flux = find_architecture("FluxImageGenerator")
    config = {**flux.transformer, "num_layers": FLUX_BLOCKS[0], "num_single_layers": FLUX_BLOCKS[1]}
    return Architecture("FLUX.1, 4+8 blocks", config, SIZE, SIZE, flux.text_tokens, guidance_pair=False, steps=20)


def schedules_of(architecture: Architecture, files: Sequence[Path], steps: int) -> list[CacheSchedule]:
    """The schedule that computes everything, every second and third step, and those of files."""
    blocks = architecture.transformer["num_layers"]
    sites = pixart_sites(blocks) if architecture.guidance_pair else flux_sites(*FLUX_BLOCKS)
    chosen = [heuristics.none(sites, steps).replace(name="all ones")]
    chosen += [heuristics.every_n(sites, steps, n).replace(name=f"every {n}") for n in (2, 3)]
    loaded = [CacheSchedule.load(file) for file in files]
    return chosen + [schedule.resample(sites=sites, steps=steps).replace(name=schedule.name) for schedule in loaded]


class Worker:
    """A process that generates images with the ecad of one checkout.

    Args:
        checkout: root folder of the repository.
        model: file that describes the model.
    """

    def __init__(self, checkout: Path, model: Path) -> None:
        script = Path(__file__).with_name("runtime_worker.py")
        environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        self._process = subprocess.Popen(
            [sys.executable, script, model], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def generate(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Generate one image; what it takes is described in `runtime_worker.py`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._process.args[1]}: the worker ended with exit code {self._process.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@contextmanager
def workers(checkouts: Mapping[str, Path], model: Path) -> Iterator[dict[str, Worker]]:
    """A worker for each checkout, until the `with` ends."""
    with ExitStack() as stack:
        made = {name: Worker(checkout, model) for name, checkout in checkouts.items()}
        for worker in made.values():
            stack.callback(worker.close)
        yield made


def measure(
    by_checkout: Mapping[str, Worker], variants: Mapping[str, Mapping[str, Any]], rounds: int
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Generate one image of each variant in each round, after one round that does not count.

    Args:
        by_checkout: name of a checkout -> its worker.
        variants: name -> what the worker is asked for.
        rounds: that count.

    Returns:
        Checkout -> variant -> what each of its images took.
    """
    found: dict[str, dict[str, list[dict[str, Any]]]] = {name: {one: [] for one in variants} for name in by_checkout}
    for number in range(-1, rounds):
        for variant, request in variants.items():
            for name, worker in by_checkout.items():
                image = worker.generate(request)
                if number >= 0:
                    found[name][variant].append(image)
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return found


def ratio(over: Sequence[float], under: Sequence[float], resamples: int = 4000) -> dict[str, float]:
    """Median of the ratios of two variants, round by round, with a 95% interval by bootstrap over rounds."""
    ratios = np.divide(over, under)
    drawn = np.random.default_rng(0).choice(ratios, (resamples, len(ratios)))
    low, high = np.quantile(np.median(drawn, axis=1), (0.025, 0.975))
    return {"median": float(np.median(ratios)), "low": float(low), "high": float(high)}


def row_of(
    variant: str, theoretical: float, images: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]
) -> dict[str, Any]:
    """One line of the result: the theoretical speed-up of a schedule, and the measured one in each checkout."""
    row: dict[str, Any] = {"schedule": variant, "theoretical": theoretical}
    for name, of in images.items():
        one: dict[str, Any] = {key: of[variant][0][key] for key in ("peak_bytes", "predicted_bytes")}
        for clock in CLOCKS:
            bare, cached = ([image[clock] for image in of[which]] for which in ("bare", variant))
            one[clock] = {"seconds": median(cached), "speed_up": ratio(bare, cached)}
            one[clock]["fraction"] = one[clock]["speed_up"]["median"] / theoretical
        row[name] = one
    if len(images) > 1:
        here, other = ([image["processor"] for image in of[variant]] for of in images.values())
        row["processor_time_of_the_other"] = ratio(here, other)
        row["same_latents"] = len({image["latents"] for of in images.values() for image in of[variant]}) == 1
    return row


def report(rows: Sequence[Mapping[str, Any]], checkouts: Sequence[str]) -> None:
    """Print the table."""
    for name in checkouts:
        print(
            f"{name}\n{'':34}{'theoretical':>12}{'processor time':>25}{'fraction':>9}{'wall clock':>25}{'peak MB':>9}"
        )
        for row in rows:
            print(f"{row['schedule'][:33]:34}{row['theoretical']:12.3f}", end="")
            for clock in CLOCKS:
                up = row[name][clock]["speed_up"]
                print(f"{up['median']:9.3f} [{up['low']:.3f}, {up['high']:.3f}]", end="")
                if clock == "processor":
                    print(f"{row[name][clock]['fraction']:9.3f}", end="")
            print(f"{row[name]['peak_bytes'] / 1e6:9.1f}")
    for row in rows:
        if "same_latents" in row:
            part = row["processor_time_of_the_other"]
            print(f"{row['schedule'][:33]:34}processor time here / there {part['median']:.4f}", end="")
            print(f" [{part['low']:.4f}, {part['high']:.4f}], same latents: {row['same_latents']}")


def reused_forward(by_checkout: Mapping[str, Worker], every_2: Mapping[str, Any]) -> dict[str, Any]:
    """What one forward dispatches that reuses everything, in each checkout and under plain hooks."""
    found = {name: worker.generate({**every_2, "counts": True})["forward"] for name, worker in by_checkout.items()}
    found["plain hooks"] = by_checkout[HERE].generate({**every_2, "counts": True, "plain": True})["forward"]
    return found


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("pixart", "flux", "builtin"), default="pixart")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="of each image; published schedules have 20")
    parser.add_argument("--schedules", type=Path, nargs="*", default=[], help="schedule files to measure too")
    parser.add_argument("--beside", type=Path, help="another checkout of ecad, measured in turns with this one")
    parser.add_argument("--output", type=Path, help="build/benchmarks/runtime_MODEL_DTYPE.json by default")
    args = parser.parse_args()
    if args.steps < 4:
        parser.error(f"--steps {args.steps}: expected 4 or more, of which the fourth is counted")
    if args.beside is not None and not (args.beside / "ecad" / "__init__.py").is_file():
        parser.error(f"--beside {args.beside}: expected a checkout of ecad")
    return args


def main() -> None:
    args, root = parsed(), Path(ecad.__file__).parents[1]
    architecture = describe(args.model)
    schedules = schedules_of(architecture, args.schedules, args.steps)
    model = {"config": architecture.transformer, "dtype": args.dtype, "size": architecture.height, "steps": args.steps}
    model |= {"text_tokens": architecture.text_tokens, "guidance_pair": architecture.guidance_pair}
    is_builtin = args.model == "builtin"
    model["folder"] = str(builtin.PIPELINE_FOLDER) if is_builtin else None
    checkouts = {HERE: root} | ({"beside": args.beside.resolve()} if args.beside else {})
    with tempfile.TemporaryDirectory() as folder:
        model_file = Path(folder) / "model.json"
        model_file.write_text(json.dumps(model))
        variants: dict[str, dict[str, Any]] = {"bare": {"schedule": None}}
        for number, schedule in enumerate(schedules):
            file = Path(folder) / f"{number}.json"
            schedule.save(file)
            variants[schedule.name] = {"schedule": str(file)}
            if is_builtin:
                variants[schedule.name + KEPT] = {"schedule": str(file), "again": True}
        every_2 = variants[schedules[1].name]
        with workers(checkouts, model_file) as by_checkout:
            forward = reused_forward(by_checkout, every_2)
            images = measure(by_checkout, variants, args.rounds)
            plain = by_checkout[HERE].generate({**every_2, "plain": True})["latents"]
    same_bits = plain == images[HERE][schedules[1].name][0]["latents"]
    macs = {schedule.name: count_macs(schedule, architecture) for schedule in schedules}
    uncached = macs[schedules[0].name]
    rows = [row_of(name, uncached / macs[name.removesuffix(KEPT)], images) for name in variants if name != "bare"]
    report(rows, list(checkouts))
    print(f"a fully reused forward: {json.dumps(forward)}; same bits as plain hooks: {same_bits}")
    result = {
        "model": {"name": args.model, **{key: model[key] for key in ("size", "dtype", "steps")}},
        "machine": {"processor": platform.processor() or platform.machine(), "threads": 1},
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "same_bits": same_bits,
        "reused_forward": forward,
        "rows": rows,
        "images": images,
    }
    output = args.output or Path(f"build/benchmarks/runtime_{args.model}_{args.dtype}.json")
    write_atomic(output, json.dumps(result, indent=2) + "\n")
    print(f"written to {output}")


if __name__ == "__main__":
    main()
