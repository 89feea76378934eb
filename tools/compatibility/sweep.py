"""Run every pipeline class of diffusers' tests with cache schedules, in every mode, and write the results.

python tools/compatibility/sweep.py --diffusers CHECKOUT [--only TEXT] [--mode eager] [--output FILE]

Each pipeline class is built in its own process. Each mode runs in a copy of that process and has a time limit.
Every result is a line of JSON. An interrupted run resumes; results of other releases or of another
state of the code are replaced. `page.py` draws the table. Needs `pip install 'ecad[compat]'`.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.metadata
import json
import logging
import os
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}

import diffusers
import modes
import standins
import subjects
import torch
import transformers
from case import Case, NotTried, Wrong, one_line
from copies import in_copy

import ecad

_PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "peft", "torchao")
_CODE = ("ecad/runtime", "ecad/sites", "ecad/schedules", "tools/compatibility")
# Used instead of a mode for pipelines that cannot be built or cached.
WHOLE = "all"
_BUILD_SECONDS = 120


def versions(checkout: Path) -> dict[str, str]:
    """The versions that results depend on."""
    git = subprocess.run(["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    found = {"ecad": code_digest(), "diffusers' tests": git.stdout.strip()[:10], "python": sys.version.split()[0]}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "none"
    return found


def code_digest() -> str:
    """A digest of ecad's runtime and of this tool."""
    root = Path(ecad.__file__).parents[1]
    files = sorted(path for folder in _CODE for path in (root / folder).rglob("*.py") if path.name != "page.py")
    found = hashlib.sha256()
    for path in files:
        found.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:12]


def judge(case: Case, mode: str) -> dict[str, Any]:
    """Result and reason of one mode."""
    try:
        modes.MODES[mode](case)
    except Wrong as error:
        found = {"result": "wrong", "note": str(error)}
    except NotTried as error:
        found = {"result": "not tried", "note": str(error)}
    except ecad.EcadError as error:
        found = {"result": "refused", "note": one_line(error)}
    except Exception as error:
        frame = _last_frame(error)
        found = {"result": "wrong", "note": f"{one_line(error)} ({frame})"}
    else:
        found = {"result": "pass", "note": ""}
    return {**found, "seen": case.seen}


def _last_frame(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/ecad/" in frame.filename] or frames
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"


def sweep_tests(checkout: Path, left: dict[type, list[str]], name: str, seconds: float) -> Iterator[dict[str, Any]]:
    """Results of the pipeline classes of one test file, each in the remaining modes."""
    for test, wanted in left.items():
        about = {"file": name, "test": test.__name__, "class": subjects.class_name(test)}
        try:
            subject = subjects.build(checkout, test)
            case = Case(subject)
            subjects.prepare(subject)
            case.settle()
        except ecad.EcadError as error:
            yield {**about, "mode": WHOLE, "result": "refused", "note": one_line(error)}
            continue
        except Exception as error:
            yield {**about, "mode": WHOLE, "result": "not tried", "note": one_line(error)}
            continue
        about["transformer"] = type(next(iter(case.modules.values()))).__name__
        for mode in wanted:
            begun = time.monotonic()
            found = in_copy(lambda mode=mode, case=case: judge(case, mode), seconds)
            found = found or {"result": "not tried", "note": f"no result within {seconds:.0f} seconds"}
            yield {**about, "mode": mode, **found, "seconds": round(time.monotonic() - begun, 1)}


def known_results(path: Path, key: str) -> tuple[list[str], set[tuple[str, str]]]:
    """The lines that are still valid, and their (test, mode)."""
    lines, found = [], set()
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # cut off
        if entry.get("key") == key:
            lines.append(line)
            found.add((f"{entry['file']}:{entry.get('test')}", entry["mode"]))
    return lines, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--diffusers", type=Path, default=os.environ.get("DIFFUSERS_CHECKOUT"), help="a git checkout")
    parser.add_argument("--only", action="append", help="part of the path of a test file")
    parser.add_argument("--mode", action="append", choices=modes.MODES)
    parser.add_argument("--seconds", type=float, default=300, help="limit of a mode of a class")
    parser.add_argument("--output", type=Path, default=Path("build/compatibility.jsonl"))
    args = parser.parse_args()
    if args.diffusers is None or not (args.diffusers / "tests" / "pipelines").is_dir():
        parser.error("--diffusers must be a git checkout of diffusers, with its folder tests/pipelines")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    diffusers.utils.logging.set_verbosity_error()
    transformers.logging.set_verbosity_error()
    logging.disable(logging.CRITICAL)
    standins.install()
    for name in ("accelerate", "ecad.runtime.cache", "peft", "torch._dynamo", "torchao"):
        with suppress(ImportError):  # imported once for all copies
            importlib.import_module(name)
    told = versions(args.diffusers)
    key = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]
    args.output.parent.mkdir(parents=True, exist_ok=True)
    lines, known = known_results(args.output, key)
    args.output.write_text("".join(line + "\n" for line in lines))
    args.output.with_suffix(".versions.json").write_text(json.dumps(told, indent=1) + "\n")
    wanted = args.mode or list(modes.MODES)
    rounds = [wanted[begin:end] for begin, end in pairwise((0, *modes.ROUNDS))]
    chosen = [
        file for file in subjects.files(args.diffusers) if not args.only or any(o in str(file) for o in args.only)
    ]
    try:
        for names in filter(None, rounds):
            for file in chosen:
                _sweep(args, file, names, known, key)
    except KeyboardInterrupt:
        sys.exit(f"interrupted; {args.output} has the results so far; run the same command to resume")


def _sweep(args: argparse.Namespace, file: Path, names: list[str], known: set[tuple[str, str]], key: str) -> None:
    name = str(file.relative_to(args.diffusers / "tests")).removeprefix("pipelines/")

    def write(entry: dict[str, Any]) -> None:
        with args.output.open("a") as output:
            output.write(json.dumps({"key": key, **entry}) + "\n")
        print(f"{entry['result']:9} {entry['mode']:17} {entry.get('class', name)} {entry['note']}", flush=True)

    def work() -> list[tuple[str, str]]:
        found = []
        for entry in sweep_tests(args.diffusers, left, name, args.seconds):
            write(entry)
            found.append((f"{name}:{entry['test']}", entry["mode"]))
        return found

    try:  # imported here, so that copies share the imports of tests
        tests = list(subjects.tests_in(args.diffusers, file))
    except Exception as error:
        if (f"{name}:None", WHOLE) not in known:
            write({"file": name, "mode": WHOLE, "result": "not tried", "note": one_line(error)})
            known.add((f"{name}:None", WHOLE))
        return
    left = {}
    for test in tests:
        place = f"{name}:{test.__name__}"
        modes_left = [mode for mode in names if (place, mode) not in known]
        if modes_left and (place, WHOLE) not in known:
            left[test] = modes_left
    if not left:
        return
    found = in_copy(work, _BUILD_SECONDS + len(names) * args.seconds)
    known.update(found or ())
    if found is None:
        print(f"died      {file}", flush=True)


if __name__ == "__main__":
    main()
