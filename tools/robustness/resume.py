"""Kill `embed`, `generate`, `score` and `optimize` at random moments, resume them, and compare with uninterrupted runs.

python tools/robustness/resume.py [--kills 25] [--only score] [--seed 0] [--output build/benchmarks/resume.json]

Every command is restarted on the files that the last kill (SIGKILL) left, until it ends by itself. Then all files,
temporary and hidden ones included, must equal those of an uninterrupted run byte by byte. If kills are left, the
command starts again in an empty folder. One kill in five comes while the process starts, the others at a random
time after its first write.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ecad.builtin import prompts
from ecad.genetic.study.layout import DATABASE, LOCK
from ecad.genetic.study.store import Store
from ecad.utils.files import write_atomic

MODEL = ["--image-generator", "EmojiImageGenerator", "--device", "cpu"]
# Approximate number of kills before a run ends.
KILLS_A_RUN = 6


@dataclass(frozen=True)
class Case:
    """A command that is killed and resumed.

    Args:
        name: name of the command.
        arguments: folder -> arguments of the command.
        begin: prepares the folder of the command, if it needs files there.
        leaves: folder -> the results that must not depend on interruptions.
    """

    name: str
    arguments: Callable[[Path], list[object]]
    begin: Callable[[Path], object] = Path.mkdir
    leaves: Callable[[Path], dict[str, Any]] = field(default=lambda folder: contents(folder))


def contents(folder: Path) -> dict[str, Any]:
    """Every file of a folder, including hidden ones, and the SHA-256 of its content."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def study_contents(folder: Path) -> dict[str, Any]:
    """The files of a study, and its database without the measured seconds."""
    found = {name: digest for name, digest in contents(folder).items() if name not in (DATABASE, LOCK)}
    with Store.read(folder) as store:
        tables: dict[str, Any] = {
            "settings": store.settings(),
            "versions": store.versions(),
            "candidates": [[*row[:2], row.bits.hex(), *row[3:]] for row in store.candidates()],
            "generations": [row[:2] for row in store.generations()],
        }
        for table in ("scores", "items", "plans", "failures"):
            tables[table] = sorted(store._rows(f"SELECT * FROM {table}"))
        tables["random states"] = store._rows("SELECT number, random_state FROM generations ORDER BY number")
    return found | {name: hashlib.sha256(repr(rows).encode()).hexdigest() for name, rows in tables.items()}


def written(folder: Path) -> set[tuple[str, int]]:
    """Names and sizes of all files, which change whenever the command writes."""
    found = set()
    for path in folder.rglob("*"):
        try:
            found.add((str(path), path.stat().st_size))
        except OSError:  # gone since
            continue
    return found


def start(case: Case, folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ecad", case.name, *map(str, case.arguments(folder)), "--json"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})


def until_it_writes(process: subprocess.Popen[bytes], folder: Path, before: set[tuple[str, int]]) -> None:
    while process.poll() is None and written(folder) == before:
        time.sleep(0.01)


def run(case: Case, folder: Path) -> tuple[float, float]:
    """Run a command to its end; returns the seconds until its first write, and from there to the end."""
    before, begin = written(folder), time.perf_counter()
    process = start(case, folder)
    until_it_writes(process, folder, before)
    wrote = time.perf_counter()
    code = process.wait()
    assert code == 0, f"{case.name}: exit code {code}"
    return wrote - begin, time.perf_counter() - wrote


def kill(case: Case, folder: Path, moment: float, at_work: bool) -> dict[str, Any] | None:
    """Start a command and kill it after a number of seconds, counted from its start or from its first write.

    Returns:
        the results, or None if the command ended before.
    """
    before, begin = written(folder), time.perf_counter()
    process = start(case, folder)
    if at_work:
        until_it_writes(process, folder, before)
    try:
        code = process.wait(moment)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        left = [path for path in folder.rglob("*") if path.is_file()]
        return {
            "at_work": at_work,
            "seconds": round(time.perf_counter() - begin, 2),
            "files": len(left),
            "temporary": sum(path.suffix == ".tmp" for path in left),
            "bytes": sum(path.stat().st_size for path in left),
        }
    assert code == 0, f"{case.name}: exit code {code}"
    return None


def prove(case: Case, place: Path, kills: int, chance: random.Random) -> dict[str, Any]:
    """One row of the table."""
    whole = place / f"{case.name}-whole"
    case.begin(whole)
    starting, working = run(case, whole)
    expected, killed, different, runs = case.leaves(whole), [], [], 0
    print(f"{case.name}: starts {starting:.1f} s, works {working:.1f} s", flush=True)
    while len(killed) < kills:
        folder = place / f"{case.name}-killed-{runs}"
        case.begin(folder)
        through = False
        while not through and len(killed) < kills:
            at_work = chance.random() < 0.8
            moment = chance.uniform(0, 2 * working / KILLS_A_RUN if at_work else starting)
            row = kill(case, folder, moment, at_work)
            through = row is None
            killed += [] if row is None else [{"run": runs, **row}]
            print(f"  {killed[-1] if row else 'through'}", flush=True)
        if not through:
            run(case, folder)
        found = case.leaves(folder)
        different += [f"run {runs}: {name}" for name in {**found, **expected} if found.get(name) != expected.get(name)]
        shutil.rmtree(folder)
        runs += 1
    return {
        "command": case.name,
        "seconds_starting": starting,
        "seconds_working": working,
        "kills": len(killed),
        "runs": runs,
        "compared": len(expected),
        "different": different,
        "moments": killed,
    }


def cases(place: Path) -> list[Case]:
    """The commands; each works on the results of the previous one."""
    texts = prompts("search")
    for name, count in (("many", 48), ("few", 12), ("search", 2)):
        (place / f"{name}.txt").write_text("\n".join(texts[:count]))
    for n in (2, 4):
        every_n = [sys.executable, "-m", "ecad", "schedule", "every-n", "--n", str(n)]
        subprocess.run([*every_n, "-o", str(place / f"schedules/every_{n}.json")], check=True)
    few = ["embed", *MODEL, "-f", place / "few.txt", "-o", place / "embeddings", "-b", 4]
    subprocess.run([sys.executable, "-m", "ecad", *map(str, few)], check=True)
    images = place / "generate-whole"
    search = ["--population-size", 4, "--generations", 2, "--batch-size", 2, "--held-out-file", place / "search.txt"]
    make = ["-i", place / "embeddings", "-d", place / "schedules", "-n", 3, "-b", 2]
    judge = ["--benchmark-prompts", place / "few.txt", "--scorer", "judge", "--device", "cpu", "-b", 1]
    return [
        Case("embed", lambda folder: [*MODEL, "-f", place / "many.txt", "-b", 1, "-o", folder]),
        Case("generate", lambda folder: [*MODEL, *make, "-o", folder]),
        Case("score", lambda folder: [*judge, "--image-dir", folder], lambda folder: shutil.copytree(images, folder)),
        Case(
            "optimize",
            lambda folder: [*MODEL, *search, "--prompt-file", place / "search.txt", "-o", folder],
            leaves=study_contents,
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=25, help="of each command")
    parser.add_argument("--only", action="append", help="a command; `score` needs `generate` before it")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the times of the kills")
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks/resume.json"))
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for case in cases(Path(temporary)):
            if args.only is None or case.name in args.only:
                row = prove(case, Path(temporary), args.kills, random.Random(f"{args.seed} {case.name}"))
                verdict = "DIFFERENT: " + ", ".join(row["different"]) if row["different"] else "identical"
                print(
                    f"{case.name}: killed {row['kills']} times in {row['runs']} runs, then resumed: {verdict}",
                    flush=True,
                )
                rows.append(row)
                write_atomic(args.output, json.dumps(rows, indent=1) + "\n")
    sys.exit(any(row["different"] for row in rows))


if __name__ == "__main__":
    main()
