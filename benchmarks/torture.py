"""Damage the files that ecad reads in every way that comes to mind, read them, and count what comes out.

python benchmarks/torture.py [--cases 10000] [--seed 0] [--only schedule] [--output build/benchmarks/torture.json]

A reader may accept a file, and then it must come back the same through its own writer, or refuse it with one line.
Anything else (a traceback, a line that is none, ten seconds) is a fault: it is printed with the bytes that made it, and
the exit code is 1. A third of the mutants are bytes at random, the rest is JSON with odd values in odd places.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ecad.errors import EcadError
from ecad.files import write_atomic
from ecad.genetic.store import DATABASE, Store
from ecad.image_generators.image_folder import MANIFEST, begin_folder, read_manifest
from ecad.image_generators.text import PromptEmbeds
from ecad.prompts import Prompt, read_prompts
from ecad.prompts.embed import by_category, numbered
from ecad.prompts.store import INDEX, Entry, find_stored, load_stored, write_store
from ecad.quality.images import read_image
from ecad.report import Results
from ecad.schedules import CacheSchedule, heuristics, importers, pixart_sites
from ecad.schedules.card import card
from ecad.schedules.provenance import KEY

LONGEST = 10  # seconds that a reader may take
ODD = (
    None, True, 0, -1, 1e308, 10**30, float("nan"), float("inf"), "", " ", "..", "../../x", "/etc/passwd", "C:\\x",
    "CON",
    "a:b", "a\x00b", "a\nb", "\ud800", "ü" * 300, "x" * 5000, [], {}, [[]], {"": None}, "0001", "1e3",
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """A file that something reads: its name in a folder, what makes the folder, what reads it again."""

    file: str
    make: Callable[[Path], None]
    read: Callable[[Path], None]


def make_schedule(folder: Path) -> None:
    origin = {"denoiser": "D", "layout": "1", "configuration": "2", "latents": [4, 8, 8], "search": {"mode": "fast"}}
    origin |= {"held_out": {"psnr": {"mean": 1.0, "low": 0.0, "high": 2.0}}, "versions": {"ecad": "1"}}
    metrics = {"total_macs": 5, "latency": {"speedup": 2.0, "gpu": "x"}}
    schedule = heuristics.every_n(pixart_sites(2), 4, 2)
    schedule = schedule.replace(config={"height": 256}, metrics=metrics, attributes={KEY: origin})
    schedule.save(folder / "a.json")


def read_schedule(folder: Path) -> None:
    schedule = CacheSchedule.load(folder / "a.json")
    assert all(line.isprintable() for line in card(schedule).split("\n"))
    assert CacheSchedule.from_json(json.loads(json.dumps(schedule.to_json()))) == schedule


def text(name: str, content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(content) and None


def read_prompt_file(name: str) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        found = read_prompts(folder / name)
        assert found
        assert all(isinstance(prompt.text, str) and prompt.text.strip() and prompt.id for prompt in found)
        for entries in ({"": numbered(found)}, by_category(found)):
            for category, rows in entries.items():
                for entry in rows:
                    inside(folder, f"{category}/{entry.stem}.png")
                    entry.prompt.text.encode()

    return read


def import_smoothcache(folder: Path) -> None:
    importers.from_text("smoothcache", (folder / "a.json").read_text(errors="replace"), pixart_sites(2), None)


def make_store(folder: Path) -> None:
    entries = [Entry(f"000{i}", Prompt(f"000{i}", f"prompt {i}")) for i in range(3)]
    encode = lambda texts: PromptEmbeds(tuple(torch.ones(2, 4) for _ in texts), negative=torch.zeros(2, 4))  # noqa: E731
    list(write_store(folder, entries, encode, {"image_generator": "x"}, 2))


def read_store(folder: Path) -> None:
    for stored in find_stored(folder).values():
        load_stored(stored)
        for one in stored:
            inside(folder, f"{one.entry.stem}.png")


def make_manifest(folder: Path) -> None:
    begin_folder(folder, {"a": 1}, {"0000.png": {"prompt": "a fox"}, "sub/1.png": {"prompt": "b"}}, folder)


def read_manifest_file(folder: Path) -> None:
    for name in read_manifest(folder)[1]:
        inside(folder, name)


def inside(folder: Path, name: str) -> None:
    assert (folder / name).resolve().is_relative_to(folder.resolve()), f"{name!r} leaves the folder"


def make_picture(folder: Path) -> None:
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(folder / "a.png")


def make_results(folder: Path) -> None:
    Results("t", "g", (), (), "psnr").save(folder)


def make_study(folder: Path) -> None:
    with Store.open(folder) as store:
        store.settle({"scorer": "psnr"}, {"ecad": "0"})


def read_study(folder: Path) -> None:
    with Store.read(folder) as store:
        store.settings(), store.versions(), store.candidates(), store.generations()


TARGETS = {
    "schedule": Target("a.json", make_schedule, read_schedule),
    "smoothcache": Target("a.json", text("a.json", '{"attn1": [1, 0, 1], "ff-0": [1, 1, 0]}'), import_smoothcache),
    "prompts.json": Target("p.json", text("p.json", '[{"id": "a", "prompt": "b"}, "c"]'), read_prompt_file("p.json")),
    "prompts.mjhq": Target(
        "p.json", text("p.json", '{"a": {"category": "art", "prompt": "b"}}'), read_prompt_file("p.json")
    ),
    "prompts.tsv": Target("p.tsv", text("p.tsv", "Prompt\tCategory\na\tb\nc\td\n"), read_prompt_file("p.tsv")),
    "prompts.txt": Target("p.txt", text("p.txt", "a fox\n\nan owl\n"), read_prompt_file("p.txt")),
    "embeddings' index": Target(INDEX, make_store, read_store),
    "embeddings": Target("00000.safetensors", make_store, read_store),
    "manifest": Target(MANIFEST, make_manifest, read_manifest_file),
    "picture": Target("a.png", make_picture, lambda folder: read_image(folder / "a.png") is None),
    "results": Target("results.json", make_results, lambda folder: Results.load(folder) is None),
    "study": Target(DATABASE, make_study, read_study),
}


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
    """The value with something odd somewhere in it."""
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


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError(f"more than {seconds} s")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def outcome(read: Callable[[Path], None], folder: Path) -> tuple[str, str]:
    """ "accepted", "refused" or "fault", and what was said."""
    try:
        with time_limit(LONGEST):
            read(folder)
    except EcadError as error:
        said = str(error)
        return ("refused", said) if said and "\n" not in said and said.isprintable() else ("fault", f"says {said!r}")
    except (Exception, AssertionError) as error:
        return "fault", f"{type(error).__name__}: {error}"
    return "accepted", ""


def torture(target: Target, cases: int, chance: random.Random) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    faults: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        target.make(folder)
        file = folder / target.file
        whole = file.read_bytes()
        assert outcome(target.read, folder)[0] == "accepted"
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
    found = {}
    print(f"{'':20}{'cases':>8}{'accepted':>10}{'refused':>10}{'faults':>8}{'seconds':>9}")
    for name in args.only or TARGETS:
        begun = time.monotonic()
        row = torture(TARGETS[name], args.cases, random.Random(f"{args.seed} {name}"))
        found[name] = {"cases": args.cases, **row, "seconds": time.monotonic() - begun}
        counts = [row.get(kind, 0) for kind in ("accepted", "refused", "fault")]
        print(f"{name:20}{args.cases:8}{counts[0]:10}{counts[1]:10}{counts[2]:8}{found[name]['seconds']:9.1f}")
        for said, mutant in row["faults"].items():
            print(f"    {said}\n        {mutant[:300]}")
    write_atomic(args.output, json.dumps(found, indent=1) + "\n")
    sys.exit(any(row["faults"] for row in found.values()))


if __name__ == "__main__":
    main()
