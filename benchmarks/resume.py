"""Kill `embed` and `generate` at random moments, resume them, and compare what is left with an uninterrupted run.

python benchmarks/resume.py [--kills 10] [--prompts 12] [--seed 0] [--output build/benchmarks/resume.json]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ecad.builtin import prompts
from ecad.files import write_atomic

GENERATOR = ["--image-generator", "EmojiImageGenerator"]


def contents(folder: Path) -> dict[str, str]:
    """Every file of a folder, hidden ones too, and the SHA-256 of what is in it."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def finished(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file() and path.suffix != ".tmp"}


def start(*arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ecad", *map(str, arguments), "--json"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})


def finish(*arguments: object) -> float:
    """Run a command to its end; gives its seconds."""
    begin = time.perf_counter()
    code = start(*arguments).wait()
    assert code == 0, f"{arguments[0]}: exit code {code}"
    return time.perf_counter() - begin


def kill_repeatedly(command: list[object], folder: Path, kills: int, span: float, rng: random.Random) -> list[int]:
    """Start a command and kill it up to `span` seconds after it began to write; gives the files there at each kill."""
    left = []
    for _ in range(kills):
        before = finished(folder)
        process = start(*command)
        while process.poll() is None and finished(folder) == before:
            time.sleep(0.01)
        try:
            process.wait(rng.uniform(0, span))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            names = contents(folder)
            left.append(len(names))
            unfinished = sum(name.endswith(".tmp") for name in names)
            print(f"  killed {command[0]}: {len(names)} files, {unfinished} of them half written", flush=True)
    return left


def prove(name: str, command: list[object], place: Path, kills: int, rng: random.Random) -> dict[str, object]:
    """One row of the table."""
    whole, broken = place / f"{name}-whole", place / f"{name}-broken"
    seconds = finish(*command, "-o", whole)
    idle = finish(*command, "-o", whole)  # nothing left to do: what the start of a process takes
    left = kill_repeatedly([*command, "-o", broken], broken, kills, 2 * (seconds - idle) / kills, rng)
    finish(*command, "-o", broken)
    same = contents(whole) == contents(broken)
    return {
        "command": name,
        "files": len(contents(whole)),
        "kills": len(left),
        "files_at_kills": left,
        "identical": same,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, help="of each command")
    parser.add_argument("--prompts", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks/resume.json"))
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        (place / "prompts.txt").write_text("\n".join(prompts("search")[: args.prompts]))
        for n in (2, 4):
            finish_schedule = [sys.executable, "-m", "ecad", "schedule", "every-n", "--n", str(n)]
            subprocess.run([*finish_schedule, "-o", str(place / f"schedules/every_{n}.json")], check=True)
        embed = ["embed", *GENERATOR, "-f", place / "prompts.txt", "-b", 1]
        rows = [prove("embed", embed, place, args.kills, rng)]
        source = place / "embed-whole"
        generate = ["generate", *GENERATOR, "-i", source, "-d", place / "schedules", "-n", 2, "-b", 2]
        rows.append(prove("generate", generate, place, args.kills, rng))
    for row in rows:
        verdict = "identical" if row["identical"] else "DIFFERENT"
        print(f"{row['command']}: {row['files']} files, killed {row['kills']} times, then resumed: {verdict}")
    write_atomic(args.output, json.dumps(rows, indent=1) + "\n")
    assert all(row["identical"] for row in rows)


if __name__ == "__main__":
    main()
