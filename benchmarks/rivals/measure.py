"""Measures MACs, memory and time of a rival while it makes images."""

from __future__ import annotations

import gc
import io
import json
import platform
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from ecad.cost.latency import measure_interleaved
from ecad.image_generators import ImageGenerator
from ecad.utils.files import write_atomic
from rivals.setting import Setting


def _count_cpu_attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query.shape, key.shape, value.shape)


# Number of settings that are timed between two uncached batches.
TIMED_BETWEEN = 6
# torch's formulas, and one for an operator that it lacks.
_FORMULAS = flop_registry | {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _count_cpu_attention}


class Products(TorchDispatchMode):
    """Counts the multiply-accumulates of all matrix products, convolutions and attention that run.

    torch's `FlopCounterMode` gives the same sum by module, but takes 1.5 times as long.
    """

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if formula := _FORMULAS.get(func.overloadpacket):
            self.macs += formula(*args, **(kwargs or {}), out_val=out) // 2
        return out


class Memory(TorchDispatchMode):
    """Tracks the memory that operators allocate until it is released.

    Attributes:
        peak: maximum of allocated bytes, without memory from before and temporary memory inside of operators.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._held: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {storage._cdata for storage in _storages((args, kwargs))}
        for storage in _storages(out):
            if storage._cdata not in given | self._held.keys():
                size, key = storage.nbytes(), storage._cdata
                self._held[key] = weakref.ref(storage, lambda _, key=key, size=size: self._freed(key, size))
                self._now += size
        self.peak = max(self.peak, self._now)
        return out

    def _freed(self, key: int, size: int) -> None:
        del self._held[key]
        self._now -= size


def _storages(values: Any) -> list[torch.UntypedStorage]:
    tensors = (leaf for leaf in pytree.tree_leaves(values) if isinstance(leaf, torch.Tensor))
    return [tensor.untyped_storage() for tensor in tensors if tensor.device.type != "meta"]


class Meter:
    """Measurements of the denoiser's forwards.

    Attributes:
        macs: multiply-accumulates of all matrix products that ran.
        kept_bytes: maximum of bytes of tensors that are alive after a forward and were not before the first one.
        memory: memory that forwards allocate, including what they keep for later ones.
    """

    def __init__(self) -> None:
        self.macs = self.kept_bytes = 0
        self.memory = Memory()

    @contextmanager
    def around(self, pipe: Any, memory: bool) -> Iterator[None]:
        """Measure all forwards of a pipeline's denoiser; `memory` also measures allocated and kept memory."""
        modes: list[Products] = []

        def begin(*_: Any) -> None:
            modes.append(Products())
            modes[-1].__enter__()
            if memory:
                self.memory.__enter__()

        def end(*_: Any) -> None:
            if memory:
                self.memory.__exit__(None, None, None)
            modes[-1].__exit__(None, None, None)
            self.macs += modes.pop().macs
            if memory:
                self.kept_bytes = max(self.kept_bytes, new_bytes())

        handles = [
            pipe.transformer.register_forward_pre_hook(begin, prepend=True),
            pipe.transformer.register_forward_hook(end, always_call=True),
        ]
        if memory:
            gc.collect()
            gc.freeze()
        try:
            yield
        finally:
            gc.unfreeze()
            for handle in handles:
                handle.remove()


def new_bytes() -> int:
    """Bytes of all reachable tensors that were made since `gc.freeze`."""
    gc.collect()
    storages = {}
    for one in gc.get_objects():
        # issubclass, because isinstance on proxy objects of other libraries can trigger imports.
        if issubclass(type(one), torch.Tensor) and one.device.type != "meta":
            storage = one.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def make_batch(
    generator: ImageGenerator, setting: Setting, prompts: Sequence[str], seeds: Sequence[int], steps: int, memory: bool
) -> dict[str, np.ndarray]:
    """Make a batch: `images`, uint8 (n, height, width, 3); per image `macs`, bytes `kept` between forwards, `peak`."""
    meter, embeds = Meter(), generator.encode(prompts)
    with setting.applied(generator.pipe), meter.around(generator.pipe, memory):
        images = generator.generate(embeds, seeds, steps=setting.steps or steps)
    return {
        "images": images,
        "macs": np.array(meter.macs / len(prompts)),
        "kept": np.array(meter.kept_bytes / len(prompts)),
        "peak": np.array(meter.memory.peak / len(prompts)),
    }


def make_images(
    generator: ImageGenerator,
    settings: Sequence[Setting],
    prompts: Sequence[str],
    seeds: Sequence[int],
    steps: int,
    batch: int,
    folder: Path,
    progress: Callable[[Sequence[Any]], Any],
) -> dict[str, str]:
    """Make the missing images of all settings.

    Args:
        folder: the folder of one file per setting and batch; existing files are not made again.
        progress: wraps the list of tasks, for instance in a progress bar.

    Returns:
        key -> reason, for settings whose rival failed.
    """
    failed: dict[str, str] = {}
    starts = range(0, len(prompts), batch)
    for start, setting in progress([(start, setting) for start in starts for setting in settings]):
        file = batch_file(folder, setting, start, batch)
        if setting.key in failed or file.exists():
            continue
        part = slice(start, start + batch)
        try:
            found = make_batch(generator, setting, prompts[part], seeds[part], steps, memory=start == 0)
        except Exception as error:  # a rival that fails must not stop the others; the table shows the reason
            failed[setting.key] = f"{type(error).__name__}: {' '.join(str(error).split())}"
            continue
        content = io.BytesIO()
        np.savez(content, **found)
        write_atomic(file, content.getvalue())
    return failed


def batch_file(folder: Path, setting: Setting, start: int, batch: int) -> Path:
    """The file with the images of a batch."""
    return folder / setting.key / f"{start:04d}-of-{batch}.npz"


def load_images(folder: Path, setting: Setting, count: int, batch: int) -> dict[str, np.ndarray] | None:
    """All images of a setting, `macs` of each, and bytes `kept` and `peak` per image; None if images are missing."""
    files = [batch_file(folder, setting, start, batch) for start in range(0, count, batch)]
    if not all(file.exists() for file in files):
        return None
    parts = [dict(np.load(file, allow_pickle=False)) for file in files]
    return {
        "images": np.concatenate([part["images"] for part in parts])[:count],
        "macs": np.concatenate([np.full(len(part["images"]), part["macs"]) for part in parts])[:count],
        "kept": parts[0]["kept"],
        "peak": parts[0]["peak"],
    }


def time_settings(
    generator: ImageGenerator,
    uncached: Setting,
    settings: Sequence[Setting],
    prompts: Sequence[str],
    seeds: Sequence[int],
    steps: int,
    number: int,
) -> dict[str, list[float]]:
    """One round of timing: the whole pipeline for a batch, setting by setting.

    The times do not include the text encoder, or enabling a rival on the pipeline. The speed of a shared machine varies
    by the minute, so uncached images are made again every few settings. The order of the settings differs in each
    round.

    Args:
        number: number of the round.

    Returns:
        key -> seconds, and the mean seconds of the uncached batches before and after.
    """
    embeds = generator.encode(prompts)

    def seconds(setting: Setting) -> float:
        make = partial(generator.generate, embeds, seeds, steps=setting.steps or steps)
        with setting.applied(generator.pipe):
            [[time]] = measure_interleaved({setting.key: make}, samples=1, warmup=0).values()
        return time

    seconds(uncached)
    found: dict[str, list[float]] = {}
    order = [settings[i] for i in np.random.default_rng(number).permutation(len(settings))]
    before = seconds(uncached)
    for first in range(0, len(order), TIMED_BETWEEN):
        times = {setting.key: seconds(setting) for setting in order[first : first + TIMED_BETWEEN]}
        after = seconds(uncached)
        found |= {key: [time, (before + after) / 2] for key, time in times.items()}
        before = after
    return found


def time_rounds(
    generator: ImageGenerator,
    uncached: Setting,
    settings: Sequence[Setting],
    prompts: Sequence[str],
    seeds: Sequence[int],
    steps: int,
    rounds: int,
    file: Path,
    say: Callable[[str], None],
) -> dict[str, np.ndarray]:
    """Run rounds of timing, including those of earlier runs.

    Args:
        file: stores all times; settings that already have a round are left out of it.
        say: called with a line about each round.

    Returns:
        key -> the results of `time_settings`, float (rounds, 2), for settings that were timed.
    """
    done: dict[str, list[list[float]]] = json.loads(file.read_text()) if file.exists() else {}
    for number in range(rounds):
        missing = [setting for setting in settings if len(done.get(setting.key, [])) <= number]
        if not missing:
            continue
        say(f"timing {len(missing)} settings, round {number + 1} of {rounds}")
        for key, times in time_settings(generator, uncached, missing, prompts, seeds, steps, number).items():
            done.setdefault(key, []).append(times)
        write_atomic(file, json.dumps(done) + "\n")
    return {setting.key: np.array(done[setting.key]) for setting in settings if setting.key in done}


def machine() -> dict[str, Any]:
    return {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
    }
