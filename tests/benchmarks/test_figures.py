"""Who is significantly better than whom, and by how much."""

from __future__ import annotations

import numpy as np
import pytest


def test_a_level_is_won_only_outside_of_the_interval(rivals) -> None:  # type: ignore[no-untyped-def]
    def row(rival: str, cost: float, mean: float) -> dict:
        scores = {"psnr": {"mean": mean}, "judge": {"mean": mean}}
        return {"key": f"{rival} {cost}", "rival": rival, "cost": cost, "scores": scores}

    rows = [
        row("ecad fast", 0.49, 30.0),
        row("a", 0.5, 29.0),
        row("b", 0.5, 29.9),
        row("c", 0.5, 31.0),
        row("d", 0.9, 50.0),
    ]
    noise = np.array([-1.0, 1.0, -1.0, 1.0])
    values = {r["key"]: {s: r["scores"][s]["mean"] + 0 * noise for s in ("psnr", "judge")} for r in rows}
    values["b 0.5"]["psnr"] = 29.9 + noise
    found = rivals.figures.verdicts(rows, values)
    at_2 = {e["rival"]: e["verdict"] for e in found if e["score"] == "psnr" and e["level"] == 2.0}
    assert at_2 == {"a": "above", "b": "level", "c": "below", "d": "does not go there"}


def test_each_study_stands_against_the_best_rival_by_itself(rivals) -> None:  # type: ignore[no-untyped-def]
    def row(rival: str, cost: float, mean: float) -> dict:
        return {"key": f"{rival} {cost}", "rival": rival, "cost": cost, "scores": {"psnr": {"mean": mean}}}

    rows = [row("ecad fast", 0.5, 30.0), row("ecad fast, study 1", 0.5, 28.0), row("a", 0.5, 29.0), row("b", 0.5, 27.0)]
    values = {r["key"]: {"psnr": r["scores"]["psnr"]["mean"] + np.zeros(4)} for r in rows}
    found = rivals.figures.leads_by_study(rows, values, "psnr")
    assert found["ecad fast"][2.0] == {"rival": "a", "lead": 1.0, "low": 1.0, "high": 1.0, "verdict": "above"}
    assert found["ecad fast, study 1"][2.0]["verdict"] == "below"
    assert 4.0 not in found["ecad fast"]
    assert rivals.figures.is_first(rows[0]["rival"])
    assert not rivals.figures.is_first(rows[1]["rival"])


def test_of_distances_the_less_is_the_better(rivals) -> None:  # type: ignore[no-untyped-def]
    figures = rivals.figures

    def row(rival: str, cost: float, distance: float) -> dict:
        scores = {"lpips": {"mean": distance}}
        return {"key": f"{rival} {cost} {distance}", "rival": rival, "cost": cost, "scores": scores}

    rows = [row("ecad fast", 0.5, 0.1), row("ecad fast", 0.45, 0.3), row("a", 0.5, 0.2), row("b", 0.5, 0.05)]
    values = {r["key"]: {"lpips": np.full(4, r["scores"]["lpips"]["mean"])} for r in rows}
    assert figures.compared(rows) == ["lpips"]
    at_2 = {e["rival"]: (e["lead"], e["verdict"]) for e in figures.verdicts(rows, values) if e["level"] == 2.0}
    assert at_2 == {"a": (pytest.approx(0.1), "above"), "b": (pytest.approx(-0.05), "below")}
    area = figures.areas(rows, {"lpips": 1.0})
    assert area["b"]["lpips"] > area["a"]["lpips"] > 0
    assert area["ecad fast"]["lpips"] == pytest.approx((1 - 0.5 / 0.8) * 0.9 + 0.05 / 0.8 * 0.7)
