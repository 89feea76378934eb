"""Runs each part in its own process, so that failures, hangs and lack of memory do not affect the others.

The total time is divided by the weights of the parts; time that a part does not use goes to the parts after it.
"""

from __future__ import annotations

import multiprocessing
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

import diffusers

from gpu_speed.measure import Options, Part, one_line, run_part

# Minimum seconds of a part, and extra seconds to stop by itself before it is killed.
LEAST, GRACE = 8.0, 5.0
Runner = Callable[..., None]


def run_parts(
    parts: Sequence[Part], options: Options, seconds: float, runner: Runner = run_part
) -> Iterator[tuple[Part, dict[str, Any]]]:
    """Run parts one after the other.

    Args:
        parts: the most important first.
        options: options of all parts.
        seconds: time limit of all parts together.
        runner: runs one part, `measure.run_part`.

    Yields:
        each finding and its part; the last finding of a part has the kind "done", "failed", "stopped" or
        "left out".
    """
    ends = time.monotonic() + seconds
    context = _context()
    for index, part in enumerate(parts):
        left = ends - time.monotonic()
        given = (left - GRACE) * part.weight / sum(later.weight for later in parts[index:])
        if left < LEAST + GRACE:
            yield part, {"kind": "left out", "error": "no time left; run this part alone, or give more seconds"}
            continue
        given = min(max(given, LEAST), left - GRACE)
        yield part, {"kind": "begun", "seconds": given}
        for finding in _in_a_process(context, part, options, given, runner):
            yield part, finding


def _in_a_process(context: Any, part: Part, options: Options, given: float, runner: Runner) -> Iterator[dict[str, Any]]:
    receiver, sender = context.Pipe(duplex=False)
    ends = time.monotonic() + given
    process = context.Process(target=_child, args=(sender, part, options, ends, runner), daemon=True)
    process.start()
    sender.close()
    last: dict[str, Any] = {"kind": "stopped", "error": f"took longer than its {given:.0f} seconds"}
    try:
        while receiver.poll(max(0.0, ends + GRACE - time.monotonic())):
            finding = receiver.recv()
            if finding["kind"] in ("done", "failed"):
                last = finding
                break
            yield finding
    except EOFError:
        process.join(GRACE)
        last = {"kind": "failed", "error": f"its process ended with exit code {process.exitcode}"}
    finally:
        process.join(GRACE if last["kind"] == "done" else 0.5)
        if process.is_alive():
            process.kill()
        process.join()
        receiver.close()
    yield last


def _child(sender: Connection, part: Part, options: Options, ends: float, runner: Runner) -> None:
    diffusers.utils.logging.set_verbosity_error()
    try:
        runner(part, options, ends, sender.send)
    except BaseException as error:
        sender.send({"kind": "failed", "error": one_line(error), "traceback": traceback.format_exc()})
    else:
        sender.send({"kind": "done"})
    finally:
        sender.close()


def _context() -> Any:
    """Processes fork from a server that has imported everything and used no device, if the platform supports it."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["gpu_speed.measure"])
    return context
