"""Stand-ins for `gpu_speed.measure.run_part` that processes of their own can import."""

from __future__ import annotations

import os
import time
from typing import Any


def by_model(part: Any, options: Any, ends: float, report: Any) -> None:
    """Does what the part's model says."""
    report({"kind": "built", "seconds": ends - time.monotonic()})
    if part.model == "raises":
        raise ValueError("no such thing\nmore of it")
    if part.model == "crashes":
        os._exit(7)
    if part.model == "hangs":
        time.sleep(600)
