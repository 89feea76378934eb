"""The regret table: means over seeds, intervals over held-out prompts, and whether the goals are reached."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ecad.quality import mean_interval
from ecad.utils.console import console

# Of what an uncached image costs.
COSTS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)
MEAN_REGRET, WORST_REGRET, WORTH = 0.3, 1.0, 1.0


def summary(folder: Path) -> dict[str, Any]:
    """Everything that was measured so far, in this process or another."""
    runs: dict[str, dict[int, dict[str, Any]]] = {}
    for file in sorted(folder.glob("*-*.json")):
        found = json.loads(file.read_text())
        runs.setdefault(found["arm"], {})[found["seed"]] = found
    return {"arms": {arm: _of_arm(list(seeds.values())) | {"seeds": sorted(seeds)} for arm, seeds in runs.items()}}


def _of_arm(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    rows = [_at_cost([run["costs"][place] for run in runs]) for place in range(len(COSTS))]
    found: dict[str, Any] = {"images": [run["images"] for run in runs], "costs": rows}
    if "regret" in rows[0]:
        regrets = np.array([row["regret"]["by_seed"] for row in rows])
        gains = [row["gain"]["mean"] for row in rows]
        found["goals"] = {
            "mean_regret": float(regrets.mean()),
            "worst_regret": float(regrets.max()),
            "costs_with_a_gain_of_1_db": int(sum(gain >= WORTH for gain in gains)),
            "mean_gain": float(np.mean(gains)),
        }
    return found


def _at_cost(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One cost: what is handed out, its regret and its gain over the beginning."""
    scores = {
        name: np.array([row[name] for row in rows]) for name in ("handed_out", "best", "beginning") if name in rows[0]
    }
    found = {"cost": rows[0]["cost"], "handed_out": _estimate(scores["handed_out"])}
    if "best" in scores:
        found["regret"] = _estimate(scores["best"] - scores["handed_out"])
        found["gain"] = _estimate(scores["handed_out"] - scores["beginning"])
    return found


def _estimate(values: np.ndarray) -> dict[str, Any]:
    """Of float (seeds, prompts): the mean, its 95% interval over prompts, and each seed's mean."""
    low, high = mean_interval(values.mean(axis=0))
    by_seed = np.round(values.mean(axis=1), 3).tolist()
    return {"mean": round(float(values.mean()), 3), "low": round(low, 3), "high": round(high, 3), "by_seed": by_seed}


def print_tables(result: Mapping[str, Any]) -> None:
    """One Markdown table per arm."""
    for arm, found in result["arms"].items():
        worth = np.mean([sum(images.values()) for images in found["images"]])
        console.print(f"\n{result['generator']}, {arm}, seeds {found['seeds']}, {worth:.0f} images' worth of work\n")
        console.print("| | " + " | ".join(f"{100 * cost:.0f}% ({1 / cost:.2f}×)" for cost in COSTS) + " |")
        console.print("| --- |" + " ---: |" * len(COSTS))
        for name in ("handed_out", "regret", "gain"):
            if name in found["costs"][0]:
                cells = [row[name] for row in found["costs"]]
                shown = [f"{one['mean']:.1f} [{one['low']:.1f}, {one['high']:.1f}]" for one in cells]
                console.print(f"| {name} | {' | '.join(shown)} |")
        for name, value in found.get("goals", {}).items():
            console.print(f"{name}: {value:.2f}")
