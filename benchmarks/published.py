"""Counts the MACs of all published schedules in a folder, with both accountings, and checks the files' own metrics.

python benchmarks/published.py FOLDER [--output build/benchmarks/published.json]

`metrics.total_macs` of a file must equal `ecad.count_macs` exactly, with the accounting that the file names, or else
"linear", as published. Published FLUX files count two images. The exit code is 1 if any differs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from ecad.cost import count_macs
from ecad.cost.macs import uncached_macs
from ecad.errors import EcadError
from ecad.schedules import CacheSchedule
from ecad.utils.console import bar
from ecad.utils.files import write_atomic


def generator_of(schedule: CacheSchedule) -> str:
    """The image generator of a schedule, from its blocks and config."""
    if any(block.startswith("single_") for block in schedule.blocks):
        return "FluxImageGenerator"
    weights = str(schedule.config.get("transformer_weights", "")) + str(schedule.config.get("pipeline_weights", ""))
    return "PixArtSigmaImageGenerator" if "Sigma" in weights else "PixArtAlphaImageGenerator"


def price(file: Path, folder: Path) -> dict[str, Any]:
    """One row: MACs by both accountings, the file's own count, and whether it agrees (None if it has no count)."""
    schedule = CacheSchedule.load(file)
    name = generator_of(schedule)
    row: dict[str, Any] = {"file": file.relative_to(folder).as_posix(), "image_generator": name}
    for accounting in ("full", "linear"):
        row[accounting] = count_macs(schedule, name, accounting)
    row["times_fewer"] = uncached_macs(schedule, name) / row["full"]
    said = schedule.metrics.get("total_macs")
    accounting = schedule.metrics.get("accounting", "linear")
    images = 2 if name.startswith("Flux") and "accounting" not in schedule.metrics else 1
    agrees = None if said is None else said == images * row[accounting]
    return {**row, "said": said, "images_counted": images, "agrees": agrees}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks/published.json"))
    args = parser.parse_args()
    files = sorted(args.folder.rglob("*.json"))
    if not files:
        print(f"{args.folder}: no schedules (*.json) in this folder", file=sys.stderr)
        return 2
    try:
        rows = [price(file, args.folder) for file in bar(files, "schedules")]
    except EcadError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{'file':58}{'full, T':>10}{'linear, T':>11}{'reduction':>11}  own metrics")
    words = {None: "none", True: "agree", False: "DIFFER"}
    for row in rows:
        said = words[row["agrees"]] + (f": {row['said']}" if row["agrees"] is False else "")
        shown = f"{row['full'] / 1e12:10.4f}{row['linear'] / 1e12:11.4f}{row['times_fewer']:10.2f}×"
        print(f"{row['file'][-57:]:58}{shown}  {said}")
    counts = Counter(words[row["agrees"]] for row in rows)
    print(f"{len(rows)} schedules: {counts['agree']} agree, {counts['DIFFER']} differ, {counts['none']} have no count")
    write_atomic(args.output, json.dumps({"folder": args.folder.name, "rows": rows}, indent=1) + "\n")
    print(f"written to {args.output}")
    return 1 if counts["DIFFER"] else 0


if __name__ == "__main__":
    sys.exit(main())
