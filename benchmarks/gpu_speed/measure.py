"""Times the variants of one model alternately, in rounds, until the time limit."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ecad.cost.measure import measure
from ecad.cost.table import CostTable
from ecad.runtime.cache import CacheRun
from ecad.sites.discovery import discover
from ecad.sites.readers import readers
from gpu_speed.chain import measure_chain
from gpu_speed.models import MODELS, Loop, Model, make_loop
from gpu_speed.rows import look_at_row
from gpu_speed.variants import BARE, Variant, fused, rivals, schedules

Report = Callable[[dict[str, Any]], None]

# Rows of an image, the largest of these within the time limit. Each is divisible by 2 and 3.
STEPS = (20, 12, 6)
# Maximum repetitions of short images, and maximum seconds per visit.
_MOST_IMAGES, _SHORT = 5, 0.5
# An uncached batch that takes longer than this is not repeated in a visit.
_LONG = 3.0
# Rows of an image whose last row is profiled: bare, computed with a schedule, reused.
_LOOKED_AT = 4
_ROWS_OF = (BARE, "all ones", "every 2", "every 2, fused")
# The planned fraction of a part's time; the rest is a reserve.
_PLANNED = 0.8


@dataclass(frozen=True)
class Part:
    """One model at one batch size, run in one way.

    Args:
        model: name of the model.
        batch: batch size.
        mode: "eager", "blocks" (`compile_repeated_blocks`), "whole" (`compile`), "fused" (`fuse_rows` beside eager), or
            "chain" (`measure_chain`).
        weight: its share of the total time, relative to the other parts.
    """

    model: str
    batch: int
    mode: str
    weight: float = 1.0

    @property
    def name(self) -> str:
        """Name on the command line and in the table."""
        return f"{self.model}/{self.batch}/{self.mode}"


@dataclass(frozen=True)
class Options:
    """Options of all parts.

    Args:
        device: device of the models.
        dtype: dtype of the weights.
        tiny: whether to measure the tiny twins.
        rounds: maximum number of rounds.
        steps: rows of an image; None for as many as time allows.
        backend: backend of `torch.compile`.
        published: folder of published schedules.
        variants: names of the variants to measure; None for all.
        with_rivals: whether to measure other caches, too.
    """

    device: str
    dtype: torch.dtype
    tiny: bool = False
    rounds: int = 5
    steps: int | None = None
    backend: str = "inductor"
    published: Path | None = None
    variants: tuple[str, ...] | None = None
    with_rivals: bool = True


def run_part(part: Part, options: Options, ends: float, report: Report) -> None:
    """Measure one part.

    Args:
        part: the part.
        options: the options.
        ends: end of the time limit, by `time.monotonic`; measurements that would take longer are dropped.
        report: called with each finding at once, as JSON values.
    """
    model = MODELS[part.model]
    if part.mode == "chain":
        for finding in measure_chain(model, options.device, options.dtype, part.batch, options.tiny, options.backend):
            report(finding)
        return
    begun = time.perf_counter()
    loop = make_loop(model, options.device, options.dtype, part.batch, _LOOKED_AT, options.tiny)
    report({"kind": "built", "seconds": time.perf_counter() - begun, "device": device_name(options.device)})
    _compile(loop, part.mode, options.backend)
    loop()  # compiles and warms up
    per_row = timed(loop)["seconds"] / loop.steps
    table = macs_of(model, options.tiny, part.batch)
    looks = len(_ROWS_OF) * 2 * _LOOKED_AT * per_row * 1.5
    loop.steps = options.steps or _steps_in(per_row, ends - looks - time.monotonic())
    is_long = part.mode == "eager" and per_row * loop.steps > _LONG
    _rounds(loop, _variants(loop, table, part, options), table, options.rounds, is_long, ends - looks, report)
    loop.steps = _LOOKED_AT
    for variant in (fused if part.mode == "fused" else schedules)(loop, table):
        if variant.name in _ROWS_OF and time.monotonic() + looks / 3 < ends:
            report({"kind": "row", "variant": variant.name, **look_at_row(loop, variant, _LOOKED_AT - 1)})


def _rounds(
    loop: Loop,
    variants: Sequence[Variant],
    table: CostTable,
    rounds: int,
    is_long: bool,
    ends: float,
    report: Report,
) -> None:
    full = int(table.price(variants[0].computes.recompute))
    theoretical = {one.name: full / int(table.price(one.computes.recompute, one.computes.forecast)) for one in variants}
    for variant in variants:
        report(
            {"kind": "variant", "variant": variant.name, "theoretical": theoretical[variant.name], "steps": loop.steps}
        )
    took: dict[str, float] = {}
    broken: set[str] = set()
    for turn in range(rounds):
        for variant in variants:
            name = variant.name
            expected = took.get(name, took.get(BARE, 0.0) / theoretical[name])
            if name in broken or time.monotonic() + expected > ends:
                continue
            try:
                found = visit(loop, variant, is_long)
            except Exception as error:  # a failing rival must not stop the others
                broken.add(name)
                report({"kind": "broken", "variant": name, "error": one_line(error)})
                continue
            report({"kind": "visit", "variant": name, "round": turn, **found})
            # Only the first batch compiles.
            walls = [image["wall"] for image in found["images"]]
            took[name] = sum(walls) + (0.0 if is_long else walls[-1])


def one_line(error: BaseException) -> str:
    """An error's class and the first line of its message."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def visit(loop: Loop, variant: Variant, is_long: bool = False) -> dict[str, Any]:
    """Enable a variant, sample a first batch and some more, and disable the variant.

    Args:
        loop: the model.
        variant: the variant.
        is_long: whether to sample the first batch only.

    Returns:
        seconds of enabling, of the first batch and of each after it (`images`, with wall clock and processor time), and
        bytes: maximum allocated beyond those from before, predicted by `run.memory()`, maximum cached.
    """
    device, begun = loop.latents.device, time.perf_counter()
    with variant.applied(loop) as run:
        enabling = time.perf_counter() - begun
        before = _reset_peak(device)
        first = timed(loop)
        images = [first] if is_long else []
        while not images or (len(images) < _MOST_IMAGES and sum(image["wall"] for image in images) < _SHORT):
            before = _reset_peak(device)
            images.append(timed(loop))
        found = {"enabling": enabling, "first": first["seconds"], "images": images, "peak": _peak(device, before)}
        if isinstance(run, CacheRun):
            found |= {"predicted": run.memory(), "kept": run.stats.peak_cached_bytes}
    return found


def timed(loop: Loop) -> dict[str, float]:
    """Seconds of one batch: by the device's events (`seconds`), by the wall clock, and processor time."""
    device = loop.latents.device
    if device.type != "cuda":
        wall, processor = time.perf_counter(), time.process_time()
        loop()
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        return {"seconds": wall, "wall": wall, "processor": processor}
    first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    wall, processor = time.perf_counter(), time.process_time()
    first.record()
    loop()
    last.record()
    processor = time.process_time() - processor
    torch.cuda.synchronize()
    return {"seconds": first.elapsed_time(last) / 1e3, "wall": time.perf_counter() - wall, "processor": processor}


def macs_of(model: Model, tiny: bool, batch: int = 1) -> CostTable:
    """MACs of a model's sites in each row, counted on the meta device."""
    twin = make_loop(model, "meta", torch.bfloat16, batch, 1, tiny)
    name, *others = model.passes
    counted = measure(twin.transformer, twin.inputs(name, twin.latents, torch.zeros((), device="meta")))
    macs = (counted.layers + counted.attention) * (1 + len(others))
    return CostTable(counted.sites, int(macs[-1]), macs[:-1], readers(counted.sites))


def device_name(device: str) -> str:
    """The device and versions of the measurement."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def as_json(options: Options) -> dict[str, Any]:
    """The options as JSON values."""
    values = asdict(options).items()
    return {name: value if isinstance(value, bool | int | tuple | None) else str(value) for name, value in values}


def _variants(loop: Loop, table: CostTable, part: Part, options: Options) -> list[Variant]:
    if part.mode == "fused":
        return fused(loop, table)
    found = schedules(loop, table, options.published)
    if options.with_rivals and part.mode == "eager":
        found += rivals(loop, table)
    return [one for one in found if options.variants is None or one.name in (BARE, *options.variants)]


def _steps_in(per_row: float, seconds: float) -> int:
    """Most rows for which two rounds of all variants fit: about seven uncached images each, two batches per visit."""
    fitting = [steps for steps in STEPS if 2 * 2 * 7 * steps * per_row <= _PLANNED * seconds]
    return fitting[0] if fitting else STEPS[-1]


def _compile(loop: Loop, mode: str, backend: str) -> None:
    torch._dynamo.config.recompile_limit = 64
    if mode == "whole":
        loop.transformer.compile(backend=backend)
    elif mode == "blocks":
        # Like `compile_repeated_blocks`, which does not know the blocks of some classes.
        blocks = {loop.transformer.get_submodule(site.path.rpartition(".")[0]) for site in discover(loop.transformer)}
        for block in blocks:
            block.compile(fullgraph=True, backend=backend)


def _reset_peak(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def _peak(device: torch.device, before: int) -> int | None:
    return torch.cuda.max_memory_allocated() - before if device.type == "cuda" else None
