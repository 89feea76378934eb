"""Damage the files that ecad reads in many ways, read them, and count the outcomes.

python tools/robustness/torture.py [--cases 10000] [--seed 0] [--only schedule] [--output build/benchmarks/torture.json]

`targets.py` defines a fault. A fault is printed with the bytes that caused it, and the exit code is 1. A third of the
mutants has random bytes changed, the others are JSON with odd values in odd places.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from targets import TARGETS, Target, outcome

from ecad.utils.files import write_atomic

ODD = (
    None, True, 0, -1, 1e308, 10**30, float("nan"), float("inf"), "", " ", "..", "../../x", "/etc/passwd", "C:\\x",
    "CON",
    "a:b", "a\x00b", "a\nb", "\ud800", "ü" * 300, "x" * 5000, [], {}, [[]], {"": None}, "0001", "1e3",
)  # fmt: skip


def mutate(content: bytes, chance: random.Random) -> bytes:
    """A damaged copy."""
    if chance.random() < 1 / 3 or not (values := _json_lines(content)):
        return _damage(bytearray(content), chance)
    place = chance.randrange(len(values))
    values[place] = _odd(values[place], chance)
    text = "\n".join(json.dumps(value) for value in values)
    if chance.random() < 0.1:
        text = text.replace(
            chance.choice(["{", "[", ":"]), chance.choice(["{" * 3000, "[" * 3000, ': {"a": 1}, "a":']), 1
        )
    return text.encode("utf-8", errors="surrogatepass")


def _json_lines(content: bytes) -> list[Any]:
    try:
        return [json.loads(content)]
    except ValueError:
        pass
    try:
        return [json.loads(line) for line in content.splitlines()]
    except ValueError:
        return []


def _odd(value: Any, chance: random.Random) -> Any:
    """The value with something odd at a random place in it."""
    if not value or not isinstance(value, dict | list) or chance.random() < 0.1:
        return chance.choice(ODD)
    copy = dict(value) if isinstance(value, dict) else dict(enumerate(value))
    key = chance.choice(list(copy))
    action = chance.random()
    if action < 0.7:
        copy[key] = _odd(copy[key], chance)
    elif action < 0.8:
        del copy[key]
    elif action < 0.9:
        copy[str(chance.choice(ODD)) if isinstance(value, dict) else len(copy)] = chance.choice(ODD)
    elif isinstance(value, dict):
        copy[str(chance.choice(ODD))] = copy.pop(key)
    return copy if isinstance(value, dict) else list(copy.values())


def _damage(content: bytearray, chance: random.Random) -> bytes:
    for _ in range(chance.choice((1, 1, 2, 8))):
        at, length = chance.randrange(len(content) + 1), chance.choice((1, 2, 16, 200))
        piece = content[at : at + length]
        content[at : at + length] = chance.choice(
            (b"", bytes(chance.randbytes(length)), piece * 3, bytes(byte ^ 1 << chance.randrange(8) for byte in piece))
        )
    return bytes(content[: chance.randrange(len(content) + 1)] if chance.random() < 0.1 else content)


def torture(target: Target, cases: int, chance: random.Random) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    faults: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        target.make(folder)
        file = folder / target.file
        whole = file.read_bytes()
        result, said = outcome(target.read, folder)
        assert result == "accepted", said
        for _ in range(cases):
            mutant = mutate(whole, chance)
            file.write_bytes(mutant)
            result, said = outcome(target.read, folder)
            counts[result] += 1
            if result == "fault":
                faults.setdefault(said[:100], repr(mutant[:2000]))
    return {**counts, "faults": faults}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000, help="of each kind of file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=TARGETS, action="append")
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks/torture.json"))
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # of blank images
    found = {}
    print(f"{'':20}{'cases':>8}{'accepted':>10}{'refused':>10}{'faults':>8}{'seconds':>9}")
    for name in args.only or TARGETS:
        begun = time.monotonic()
        row = torture(TARGETS[name], args.cases, random.Random(f"{args.seed} {name}"))
        found[name] = {"cases": args.cases, **row, "seconds": time.monotonic() - begun}
        counts = [row.get(kind, 0) for kind in ("accepted", "refused", "fault")]
        print(f"{name:20}{args.cases:8}{counts[0]:10}{counts[1]:10}{counts[2]:8}{found[name]['seconds']:9.1f}")
        for said, mutant in row["faults"].items():
            print(f"    {said!a}\n        {mutant[:300]}")
    write_atomic(args.output, json.dumps(found, indent=1) + "\n")
    sys.exit(any(row["faults"] for row in found.values()))


if __name__ == "__main__":
    main()
