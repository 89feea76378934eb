"""Summarizes findings in one row per variant, and as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from gpu_speed.models import MODELS
from gpu_speed.variants import BARE

Finding = Mapping[str, Any]


def rows_of(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """One part's findings, with a row for each variant that was measured.

    Returns:
        for each variant: `seconds` of a batch (median), `speed_up` over the bare model (median over rounds of the ratio
        within a round) and its `lowest` and `highest` round, the `theoretical` one by MACs, the measured `fraction` of
        it, bytes, and the extra seconds of the first batch (`first_extra`: recording, compiling), in the first round
        and later.
    """
    visits = [finding for finding in findings if finding["kind"] == "visit"]
    theoretical = {finding["variant"]: finding["theoretical"] for finding in findings if finding["kind"] == "variant"}
    bare = {visit["round"]: _seconds(visit) for visit in visits if visit["variant"] == BARE}
    found = []
    for name in theoretical:
        mine = [visit for visit in visits if visit["variant"] == name]
        ratios = [bare[visit["round"]] / _seconds(visit) for visit in mine if visit["round"] in bare]
        if not mine or not ratios:
            continue
        speed_up, extras = median(ratios), [visit["first"] - _seconds(visit) for visit in mine]
        found.append(
            {
                "variant": name,
                "rounds": len(mine),
                "seconds": median(map(_seconds, mine)),
                "speed_up": speed_up,
                "lowest": min(ratios),
                "highest": max(ratios),
                "theoretical": theoretical[name],
                "fraction": speed_up / theoretical[name],
                "processor": median(image["processor"] for visit in mine for image in visit["images"]),
                "enabling": median(visit["enabling"] for visit in mine),
                "first_extra": {"first round": extras[0], "later": median(extras[1:]) if extras[1:] else None},
                "peak": _largest(mine, "peak"),
                "predicted": _largest(mine, "predicted"),
                "cached": _largest(mine, "kept"),
            }
        )
    return found


def text_of(part: str, findings: Sequence[Finding]) -> str:
    """One part as text: its name, its rows, its errors and how it ended."""
    model = MODELS[part.split("/")[0]]
    steps = next((finding["steps"] for finding in findings if finding["kind"] == "variant"), None)
    lines = [f"{part}: {steps} steps, goal {model.goal:.2f} of the theoretical speed-up" if steps else f"{part}:"]
    rows = rows_of(findings)
    if rows:
        lines.append(
            f"{'':26}{'s/batch':>9}{'speed-up':>10}{'lowest':>8}{'highest':>8}{'theoretical':>12}{'fraction':>9}{'':>5}"
            f"{'peak MB':>9}{'run.memory':>11}{'enable ms':>10}{'first +s':>9}{'later +s':>9}"
        )
    bare = next((row["peak"] for row in rows if row["variant"] == BARE), None)
    for row in rows:
        verdict = "" if row["variant"] == BARE else "ok" if row["fraction"] >= model.goal else "low"
        more = None if row["peak"] is None or bare is None else row["peak"] - bare
        extra = row["first_extra"]
        lines.append(
            f"{row['variant'][:25]:26}{row['seconds']:9.4f}{row['speed_up']:10.3f}{row['lowest']:8.3f}"
            f"{row['highest']:8.3f}{row['theoretical']:12.3f}{row['fraction']:9.3f}{verdict:>5}{_megabytes(more):>9}"
            f"{_megabytes(row['predicted']):>11}{1e3 * row['enabling']:10.1f}{extra['first round']:9.3f}"
            f"{'-' if extra['later'] is None else format(extra['later'], '.3f'):>9}"
        )
    for finding in findings:
        if finding["kind"] == "row":
            times = ", ".join(f"{key} {1e3 * finding[key]:.3f} ms" for key in ("busy", "idle", "span"))
            lines.append(f"  last row of {finding['variant']}: {finding['launches']} launches, {times}")
        elif finding["kind"] == "chain":
            rate = finding["bytes"] / finding["seconds"] / 1e9
            bits = "same bits" if finding["same_bits"] else "other bits"
            lines.append(
                f"  {finding['outputs']} gated sums, {finding['way']:10}{1e3 * finding['seconds']:9.3f} ms, "
                f"{rate:7.1f} GB/s of outputs, {bits}, prepared in {finding['preparing']:.1f} s"
            )
        elif finding["kind"] in ("broken", "failed", "stopped", "left out"):
            about = f" {finding['variant']}" if "variant" in finding else ""
            lines.append(f"  {finding['kind']}{about}: {finding['error']}")
    return "\n".join(lines)


def _seconds(visit: Finding) -> float:
    return median(image["seconds"] for image in visit["images"])


def _largest(visits: Iterable[Finding], key: str) -> int | None:
    return max((visit[key] for visit in visits if visit.get(key) is not None), default=None)


def _megabytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e6:.1f}"
