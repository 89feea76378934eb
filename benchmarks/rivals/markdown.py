"""The comparison as a page of the documentation, from the numbers in `peers.json`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rivals.figures import best_at, compared, is_first, is_ours, levels_of

_TITLES = {
    "psnr": "PSNR to uncached, dB",
    "judge": "Judge's score",
    "lpips": "LPIPS to uncached, thousandths (lower is better)",
}
# Score -> decimals and unit in the tables.
_SHOWN = {"psnr": (1, 1), "judge": (2, 1), "lpips": (1, 1000)}
_MARKS = {"above": "", "level": " (=)", "below": " ↓"}


def page(result: Mapping[str, Any]) -> str:
    """The page with all tables of a comparison."""
    parts = [
        f"# {result['generator']}, {result['steps']} steps, {len(result['prompts'])} held-out prompts",
        "Written by `benchmarks/peers.py` and explained in [the comparison](comparison.md). Intervals are 95% "
        "confidence intervals over prompts. (=): no significant difference to ecad's best setting; ↓: ecad is "
        "significantly worse.",
    ]
    for cost in result["verdicts"]:
        for score in compared(result["rows"]):
            parts += [f"## {_TITLES[score]}, by {cost}", level_table(result, score, cost)]
    for score in compared(result["rows"]) if len(result["by_study"]["psnr"]) > 1 else []:
        parts += [
            f"## Each study compared with the best rival at each level, {_TITLES[score]}",
            studies_table(result, score),
        ]
    parts += ["## Every setting", settings_table(result)]
    if result["not_applicable"]:
        parts += [f"Not applicable: {'; '.join(f'{name}: {why}' for name, why in result['not_applicable'].items())}."]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return "\n\n".join([*parts, f"Weights {result['weights']}; {versions}."]) + "\n"


def level_table(result: Mapping[str, Any], score: str, cost: str = "MACs", most: int | None = None) -> str:
    """The best setting of each rival at or below each level of cost; the `most` best rivals by hypervolume, or all."""
    rows = result["rows"]
    if cost == "time":
        rows = [{**row, "cost": 1 / row["speed_up"]} for row in rows if "speed_up" in row]
    marks = {(e["rival"], e["level"]): e["verdict"] for e in result["verdicts"][cost] if e["score"] == score}
    areas = {rival: area.get(score, 0.0) for rival, area in result["hypervolume"][cost].items()}
    rivals = dict.fromkeys(row["rival"] for row in rows if is_first(row["rival"]))
    ordered = sorted(rivals, key=lambda rival: (not is_ours(rival), -areas[rival]))[:most]
    lines = []
    for rival in ordered:
        cells = []
        for level in levels_of(result):
            best = best_at([row for row in rows if row["rival"] == rival], level, score)
            mark = _MARKS.get(marks.get((rival, level), ""), "")
            cells.append("–" if best is None else _interval(best["scores"][score], score) + mark)
        lines.append([rival, *cells, _area(areas[rival], score)])
    return _table(["rival", *(f"{level:g}×" for level in levels_of(result)), "hypervolume"], lines)


def studies_table(result: Mapping[str, Any], score: str) -> str:
    """The lead of each study over the best rival, by MACs."""
    digits, unit = _SHOWN[score]
    lines = []
    for study, found in result["by_study"][score].items():
        leads = {float(level): entry for level, entry in found.items()}
        cells = [
            f"{_signed(entry['lead'] * unit, digits)} [{_signed(entry['low'] * unit, digits, '')}, "
            f"{_signed(entry['high'] * unit, digits, '')}]"
            if (entry := leads.get(level))
            else "–"
            for level in levels_of(result)
        ]
        lines.append([study, *cells, _area(result["hypervolume"]["MACs"][study].get(score, 0.0), score)])
    return _table(["study", *(f"{level:g}×" for level in levels_of(result)), "hypervolume"], lines)


def settings_table(result: Mapping[str, Any]) -> str:
    """One line per setting, by rival, most expensive first; only the first study of each mode of ecad."""
    scores = compared(result["rows"])
    heads = [
        "rival",
        "setting",
        "MAC reduction",
        "evaluations",
        "speed-up",
        "kept kB",
        "peak kB",
        *scores,
        "ssim",
        "FID",
    ]
    lines = []
    rows = [row for row in result["rows"] if is_first(row["rival"])]
    for row in sorted(rows, key=lambda row: (not is_ours(row["rival"]), row["rival"], -row["cost"])):
        ratios, found = row.get("speed_ups"), row["scores"]
        lines.append(
            [
                row["rival"],
                row["name"],
                f"{1 / row['cost']:.2f}×",
                f"{result['steps'] * row['cost']:.1f}",
                f"{row['speed_up']:.2f} [{min(ratios):.2f}, {max(ratios):.2f}]" if ratios else "–",
                f"{row['kept_bytes'] / 1000:.0f}",
                f"{row['peak_bytes'] / 1000:.0f}",
                *(_interval(found[score], score) for score in scores),
                f"{found['ssim']['mean']:.3f}",
                f"{found['fid']['mean']:.2f}",
            ]
        )
    uncached = result["uncached"]
    plain = f"{uncached['macs'] / 1e9:.2f} billion MACs, {uncached['peak_bytes'] / 1000:.0f} kB at the peak"
    note = (
        "Evaluations of the denoiser are MACs in forwards of the uncached one. Speed-ups are medians over the rounds, "
        "with minimum and maximum. Bytes are per image: kept between forwards, "
        f"and at the peak. Uncached: {plain}, judge {_interval(uncached['scores']['judge'], 'judge')}."
    )
    return f"{note}\n\n{_table(heads, lines)}"


def _interval(entry: Mapping[str, float], score: str) -> str:
    digits, unit = _SHOWN[score]
    mean, low, high = (f"{entry[name] * unit:.{digits}f}" for name in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def _area(area: float, score: str) -> str:
    return f"{area:.4f}" if score == "lpips" else f"{area:.2f}"


def _signed(value: float, digits: int, plus: str = "+") -> str:
    """A signed number with a typographic minus, and never minus zero."""
    shown = f"{abs(value):.{digits}f}"
    sign = "\N{MINUS SIGN}" if value < 0 and float(shown) else plus
    return f"{sign}{shown}"


def _table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    texts = sum(head in ("rival", "setting", "study") for head in heads)
    rule = ["---"] * texts + ["---:"] * (len(heads) - texts)
    return "\n".join(
        ["| " + " | ".join(heads) + " |", "|" + "|".join(rule) + "|", *("| " + " | ".join(x) + " |" for x in lines)]
    )
