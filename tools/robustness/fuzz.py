"""Fuzz the readers of `targets.py`, guided by the lines of ecad that each input reaches.

pip install atheris
python tools/robustness/fuzz.py [--seconds 120] [--only schedule] [--output build/benchmarks/fuzz.json]

Every target is fuzzed in its own process (atheris never returns), from the intact file and some mutants of
`torture.py`. A fault ends the process: traceback and input are written beside the output, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SEEDS = 100
LONGEST_INPUT = 8192


def fuzz_one(name: str, corpus: Path, flags: list[str]) -> None:
    """Fuzz one target, without end or within libFuzzer's limits."""
    import atheris

    with atheris.instrument_imports(include=["ecad"], enable_loader_override=False):
        from targets import TARGETS, outcome
    from torture import mutate

    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        target.make(folder)
        file = folder / target.file
        whole, chance = file.read_bytes(), random.Random(0)
        (corpus / "whole").write_bytes(whole)
        for seed in range(SEEDS):
            (corpus / str(seed)).write_bytes(mutate(whole, chance))

        def read(content: bytes) -> None:
            file.write_bytes(content)
            result, said = outcome(target.read, folder)
            if result == "fault":
                raise AssertionError(said)

        atheris.Setup([sys.argv[0], str(corpus), *flags], read)
        atheris.Fuzz()


def fuzz(name: str, seconds: int, place: Path) -> dict[str, Any]:
    """One row of the table: libFuzzer's statistics of one target."""
    stem = re.sub(r"\W+", "-", name)
    log, artifacts = place / f"{stem}.log", place / f"{stem}-"
    flags = [f"-max_total_time={seconds}", f"-max_len={LONGEST_INPUT}", "-print_final_stats=1", "-timeout=30"]
    flags += ["-rss_limit_mb=4096", f"-artifact_prefix={artifacts}"]
    with tempfile.TemporaryDirectory() as corpus, open(log, "w") as stream:
        command = [sys.executable, __file__, "--target", name, "--corpus", corpus, *flags]
        code = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT).returncode
    told = log.read_text(errors="replace")
    coverage = [int(found) for found in re.findall(r"cov: (\d+)", told)] or [0]
    runs = re.search(r"number_of_executed_units: (\d+)", told)
    said = re.search(r"^(?:AssertionError|SUMMARY|[\w.]*Error).*", told, re.MULTILINE)
    fault = None if code == 0 else said[0] if said else f"exit code {code}, see {log}"
    return {
        "seconds": seconds,
        "executions": int(runs[1]) if runs else 0,
        "coverage_at_first": coverage[0],
        "coverage": coverage[-1],
        "fault": fault,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=120, help="for each target")
    parser.add_argument("--only", action="append", help="a target")
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks/fuzz.json"))
    parser.add_argument("--target", help=argparse.SUPPRESS)
    parser.add_argument("--corpus", type=Path, help=argparse.SUPPRESS)
    args, flags = parser.parse_known_args()
    if importlib.util.find_spec("atheris") is None:
        sys.exit("fuzz.py needs atheris: pip install atheris")
    if args.target:
        fuzz_one(args.target, args.corpus, flags)
        return
    from targets import TARGETS

    from ecad.utils.files import write_atomic

    place = args.output.parent / "fuzz"
    place.mkdir(parents=True, exist_ok=True)
    rows = {}
    print(f"{'':20}{'executions':>12}{'edges at first':>16}{'edges':>8}  fault")
    for name in args.only or TARGETS:
        rows[name] = row = fuzz(name, args.seconds, place)
        counts = f"{row['executions']:12}{row['coverage_at_first']:16}{row['coverage']:8}"
        print(f"{name:20}{counts}  {row['fault'] or 'none'}", flush=True)
        write_atomic(args.output, json.dumps(rows, indent=1) + "\n")
    sys.exit(any(row["fault"] for row in rows.values()))


if __name__ == "__main__":
    main()
