"""Write the results of `sweep.py` as a page of the documentation.

python tools/compatibility/page.py [--results build/compatibility.jsonl ...] [--output docs/compatibility.md]

Several files of results are of several states of the code: a later one replaces an earlier one's cells, and the page
says which columns are of which.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ecad.utils.files import write_atomic

COLUMNS = {
    "eager": "eager",
    "second generation": "again",
    "interrupted": "inter-<br>rupted",
    "guidance off": "guidance<br>ends",
    "forecasts": "fore-<br>casts",
    "offload": "off-<br>load",
    "layerwise casting": "casting",
    "torchao": "torchao",
    "LoRA": "LoRA",
    "compiled": "com-<br>piled",
    "context parallel": "context<br>parallel",
}
_SIGNS = {"pass": "✓", "wrong": "**✗**", "refused": "R", "not tried": "–"}
_INTRODUCTION = (
    "# Compatibility\n\nDiffusers pipelines that ran with a cache schedule, and the modes in which they ran. A tool "
    "builds each pipeline class of diffusers' own tests with tiny random components, replaces models from the hub "
    "by stand-ins, and runs it with random schedules. The output must be bit-identical to that of a slow interpreter "
    "of the schedule that does not use the runtime (`tools/compatibility/interpreter.py`).\n"
)
_COMMANDS = """
    pip install 'ecad[compat]'
    git clone https://github.com/huggingface/diffusers
    python tools/compatibility/sweep.py --diffusers diffusers
    python tools/compatibility/page.py

"""
_MEANING = {
    "eager": "three random schedules, one generation each; afterwards the pipeline gives its bare output again, and no "
    "attribute, override or hook is left",
    "second generation": "three generations under one enabled cache, the last with another seed",
    "interrupted": "a generation fails in its first scheduler step, one in its third, one is ended by the pipeline's "
    "own `_interrupt`; nothing stays in memory, and the next generation is right",
    "guidance off": "a callback sets the guidance scale to 1 after the second row",
    "forecasts": "two schedules that forecast, with rows that compute nothing",
    "offload": "accelerate's model and sequential offloading on the CPU, put on before and after enabling",
    "layerwise casting": "diffusers' layerwise casting, weights stored as float8_e4m3fn",
    "torchao": "`Int8WeightOnlyConfig`",
    "LoRA": "a LoRA by peft in every linear layer of the blocks; then other weights are copied into it between "
    "generations",
    "compiled": 'every block compiled by `torch.compile(backend="eager")`, which computes the same bits',
    "context parallel": "Ulysses, two processes over gloo on the CPU",
}
_NOT_RUN = {"result": "not tried", "note": "not run for this page"}
_SIGN_TABLE = """
| sign | meaning |
| --- | --- |
| ✓ | tried; everything held, bit for bit |
| **✗** | tried; something was wrong |
| R | ecad rejects it with a one-line error |
| – | not tried |

A number after a sign refers to the reasons below the table.

"""


def page(results: Sequence[tuple[Iterable[dict[str, Any]], dict[str, str]]]) -> str:
    """The document.

    Args:
        results: lines of results, and the versions that these depend on; later lines replace earlier ones of the same
            test and mode.

    Returns:
        Markdown.
    """
    cells: dict[tuple[str, str, str], dict[str, dict[str, Any]]] = defaultdict(dict)
    unbuilt, refused = {}, {}
    for entry, versions in ((entry, versions) for entries, versions in results for entry in entries):
        if entry["mode"] == "all" and entry["result"] == "refused":
            refused[entry["file"], entry["class"], entry["test"]] = entry["note"]
        elif entry["mode"] == "all":
            unbuilt[entry["file"], entry.get("class", "")] = entry["note"]
        else:
            cells[entry["file"], entry["class"], entry["test"]][entry["mode"]] = {**entry, "versions": versions}
    reasons: dict[str, int] = {}
    table = _table(cells, reasons)
    return (
        _INTRODUCTION
        + _COMMANDS
        + _summary(cells, refused)
        + _legend()
        + "## Results\n\n"
        + table
        + _reasons(reasons)
        + _refused(refused)
        + _unbuilt(unbuilt)
    )


def _legend() -> str:
    rows = [f"| {_plain_name(mode)} | {text} |" for mode, text in _MEANING.items()]
    return "\n".join(["## What each column says", "", "| column | what is done |", "| --- | --- |", *rows, _SIGN_TABLE])


def _summary(tried: dict[Any, Any], refused: dict[Any, Any]) -> str:
    classes = {row[1] for row in tried}
    lines = [f"{len(classes)} pipeline classes ran ({len(tried)} set-ups); {len({r[1] for r in refused})} are refused."]
    lines += ["", "| | " + " | ".join(COLUMNS.values()) + " |", "| --- |" + " ---: |" * len(COLUMNS)]
    for result, sign in _SIGNS.items():
        cells = [(mode, found.get(mode, _NOT_RUN)) for found in tried.values() for mode in COLUMNS]
        counts = Counter(mode for mode, cell in cells if cell["result"] == result)
        lines.append(f"| {sign} | " + " | ".join(str(counts[mode]) for mode in COLUMNS) + " |")
    return "\n".join([*lines, "", *_versions(tried), "One CPU thread, four steps.", "", ""])


def _versions(tried: dict[Any, dict[str, dict[str, Any]]]) -> list[str]:
    """A line for each state of the code, with the columns that have cells of it."""
    columns: dict[str, Counter[str]] = defaultdict(Counter)
    for found in tried.values():
        for mode, cell in found.items():
            columns[", ".join(f"{name} {version}" for name, version in cell["versions"].items())][mode] += 1
    if len(columns) == 1:
        return [f"Versions: {next(iter(columns))}."]
    return [
        f"Versions of {', '.join(f'{_plain_name(m)} ({counts[m]})' for m in COLUMNS if counts[m])}: {versions}.\n"
        for versions, counts in columns.items()
    ]


def _plain_name(mode: str) -> str:
    return COLUMNS[mode].replace("-<br>", "").replace("<br>", " ")


def _table(tried: dict[Any, dict[str, dict[str, Any]]], reasons: dict[str, int]) -> str:
    lines = ["| pipeline | " + " | ".join(COLUMNS.values()) + " |", "| --- |" + " :---: |" * len(COLUMNS)]
    family = ""
    names = Counter(row[1] for row in tried)
    for row in sorted(tried):
        file, name, _ = row
        if file.split("/")[0] != family:
            family = file.split("/")[0]
            lines.append(f"| **{family}** |" + " |" * len(COLUMNS))
        if names[name] > 1:
            name += f" ({Path(file).stem.removeprefix('test_')})"
        lines.append(f"| {name} | " + " | ".join(_cell(tried[row].get(mode), reasons) for mode in COLUMNS) + " |")
    return "\n".join([*lines, "", ""])


def _cell(found: dict[str, Any] | None, reasons: dict[str, int]) -> str:
    found = found or _NOT_RUN
    sign = _SIGNS[found["result"]]
    if not found["note"]:
        return sign
    return f"{sign} {reasons.setdefault(_plain(found['note']), len(reasons) + 1)}"


def _plain(note: str) -> str:
    return note.replace("|", "\\|").replace("<", "\\<").replace("\n", " ")


def _reasons(reasons: dict[str, int]) -> str:
    lines = [f"{number}. {reason}" for reason, number in reasons.items()]
    return "\n".join(["## Reasons", "", *lines, "", ""])


def _refused(refused: dict[tuple[str, str, str], str]) -> str:
    by_line: dict[str, list[str]] = defaultdict(list)
    for (_, name, _), note in sorted(refused.items()):
        line = _plain(note.replace(name, "..."))
        if name not in by_line[line]:
            by_line[line].append(name)
    parts = [f"`{line}`\n\n{', '.join(names)}." for line, names in by_line.items()]
    return "\n\n".join(["## Refused as a whole", *parts, ""]) + "\n" if parts else ""


def _unbuilt(unbuilt: dict[tuple[str, str], str]) -> str:
    if not unbuilt:
        return ""
    rows = [f"| {name or file} | {_plain(note)} |" for (file, name), note in sorted(unbuilt.items())]
    return "\n".join(["## Not built here", "", "| pipeline | why |", "| --- | --- |", *rows, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, nargs="+", default=[Path("build/compatibility.jsonl")])
    parser.add_argument("--output", type=Path, default=Path("docs/compatibility.md"))
    args = parser.parse_args()
    results = [
        (
            [json.loads(line) for line in file.read_text().splitlines()],
            json.loads(file.with_suffix(".versions.json").read_text()),
        )
        for file in args.results
    ]
    write_atomic(args.output, page(results))


if __name__ == "__main__":
    main()
