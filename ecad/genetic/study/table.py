"""A study as plain rows: its candidates, and one row for the whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ecad.genetic.study.study import Study


def candidate_rows(study: Study) -> list[dict[str, object]]:
    """One row per evaluated candidate, in order, of JSON values; `front` marks those on the Pareto front."""
    front = {candidate.plain.name for candidate in study.front()}
    return [
        {
            "name": candidate.plain.name,
            "generation": candidate.generation,
            "candidate": candidate.number,
            study.unit.lower(): candidate.cost,
            "reduction": study.uncached_cost / candidate.cost,
            study.settings["scorer"]: candidate.quality,
            "forecast": candidate.plain.forecast,
            "share_recomputed": candidate.plain.share_recomputed,
            "front": candidate.plain.name in front,
        }
        for candidate in study.candidates
    ]


def summary_row(study: Study) -> dict[str, object]:
    """Summary of one study, as JSON values; `best_at_2x` is None if no candidate is that cheap."""
    settings: Mapping[str, Any] = study.settings
    cheap = [candidate.quality for candidate in study.within_limits() if 2 * candidate.cost <= study.uncached_cost]
    return {
        "image_generator": settings["evaluator"].get("generator", "a custom model"),
        "mode": settings["mode"],
        "rows": settings["steps"],
        "scorer": settings["scorer"],
        "generations": len(study.history),
        "candidates": len(study.candidates),
        "failures": len(study.failures),
        "images": study.images,
        "minutes": study.seconds / 60,
        "front": len(study.front()),
        "best_at_2x": max(cheap, default=None),
    }
