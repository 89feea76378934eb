"""The gated sums of a fully reused row, implemented in three ways, to decide which one to build into the replay.

Such a row mainly computes `hidden = hidden + gate * output` for each cached output. As operators, this takes two
launches per output and five times the bytes. A CUDA graph saves the launches. A compiled chain saves both. It must be
bit-identical, so inductor is configured to round like the operators.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from ecad.sites.discovery import discover
from ecad.sites.readers import readers
from gpu_speed.models import Model, make_loop

# Outputs per compiled kernel; by default inductor writes intermediate sums after every four reads.
_READS = 32
_REPEATS = 20


def output_shapes(model: Model, batch: int, tiny: bool) -> list[torch.Size]:
    """Shapes of the outputs that a fully reused row adds to the hidden state of the image or video.

    Args:
        model: the model.
        batch: as for `make_loop`.
        tiny: as for `make_loop`.
    """
    loop = make_loop(model, "meta", torch.bfloat16, batch, 1, tiny)
    sites = discover(loop.transformer)
    read_by = readers([(site.block, site.component) for site in sites])
    shapes: list[torch.Size] = []

    def note(module: Any, args: Any, output: Any) -> None:
        shapes.append((output if isinstance(output, torch.Tensor) else output[0]).shape)

    # Outputs that only other components read, and those of the text, are not needed in such a row.
    live = [site for site, reader in zip(sites, read_by, strict=True) if reader < 0 and "context" not in site.component]
    watches = [site.module.register_forward_hook(note) for site in live]
    with torch.no_grad():
        loop.transformer(**loop.inputs(model.passes[0], loop.latents, torch.zeros((), device="meta")))
    for watch in watches:
        watch.remove()
    fewest = min(shape[1] for shape in shapes)
    return [torch.Size((shape[0], fewest, shape[2])) for shape in shapes]


def measure_chain(
    model: Model, device: str, dtype: torch.dtype, batch: int, tiny: bool, backend: str
) -> Iterator[dict[str, Any]]:
    """Time the chain of one model.

    Yields:
        for each way: its `seconds`, the seconds of `preparing` it, the least `bytes` to move, and whether it gave the
        `same_bits` as the operators.
    """
    generator = torch.Generator(device).manual_seed(0)
    made = {"generator": generator, "device": device, "dtype": dtype}
    shapes = output_shapes(model, batch, tiny)
    outputs = [torch.randn(shape, **made) for shape in shapes]  # type: ignore[call-overload]
    gates = [torch.randn(shape[0], 1, shape[2], **made) for shape in shapes]  # type: ignore[call-overload]
    hidden = torch.randn(shapes[0], **made)  # type: ignore[call-overload]
    given = (hidden, outputs, gates)
    expected = add_up(*given)
    ways: dict[str, Callable[[], Callable[[], torch.Tensor]]] = {
        "operators": lambda: lambda: add_up(*given),
        "graph": lambda: captured(lambda: add_up(*given), torch.device(device)),
        "compiled": lambda: compiled(backend, given),
    }
    for name, prepare in ways.items():
        begun = time.perf_counter()
        run = prepare()
        result = run()
        finding = {"kind": "chain", "way": name, "preparing": time.perf_counter() - begun}
        finding |= {"seconds": _seconds(run, torch.device(device)), "same_bits": torch.equal(result, expected)}
        yield {**finding, "outputs": len(shapes), "bytes": sum(tensor.nbytes for tensor in (*outputs, *gates))}


def add_up(hidden: torch.Tensor, outputs: Sequence[torch.Tensor], gates: Sequence[torch.Tensor]) -> torch.Tensor:
    """The row as operators."""
    for output, gate in zip(outputs, gates, strict=True):
        hidden = hidden + gate * output
    return hidden


def captured(run: Callable[[], torch.Tensor], device: torch.device) -> Callable[[], torch.Tensor]:
    """A function with fixed input and output memory as a CUDA graph; unchanged on other devices."""
    if device.type != "cuda":
        return run
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run()

    def replay() -> torch.Tensor:
        graph.replay()
        return result

    return replay


def compiled(backend: str, given: tuple[Any, ...]) -> Callable[[], torch.Tensor]:
    """The chain as compiled kernels that round like the operators."""
    options: dict[str, Any] = {}
    if backend == "inductor":
        options = {"emulate_precision_casts": True, "realize_reads_threshold": _READS}
    function = torch.compile(add_up, fullgraph=True, dynamic=False, backend=backend, options=options or None)
    return lambda: function(*given)


def _seconds(run: Callable[[], torch.Tensor], device: torch.device) -> float:
    """A clock: wall time for an asynchronous device, otherwise processor time, which other processes do not affect."""
    is_cuda, times = device.type == "cuda", []
    clock = time.perf_counter if is_cuda else time.process_time
    for _ in range(_REPEATS):
        if is_cuda:
            torch.cuda.synchronize()
        begun = clock()
        run()
        if is_cuda:
            torch.cuda.synchronize()
        times.append(clock() - begun)
    return statistics.median(times)
