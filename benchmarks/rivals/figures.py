"""Scores of images with confidence intervals, and comparisons of methods at equal cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ecad.quality import Judge, mean_interval, psnr
from ecad.quality.fid import Statistics, fid
from ecad.quality.fidelity import ssim
from ecad.utils.pareto import hypervolume
from rivals.setting import Setting

LEVELS = (1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0)
# A schedule of every second step counts as 2×, although its patch embedding runs at every step.
TOLERANCE = 1.02
# PSNR first: it ranks schedules with few prompts.
COMPARED = ("psnr", "judge", "lpips")
# Lower is better.
DISTANCES = ("lpips", "judge_distance")
# The reference cost of hypervolumes, as a fraction of an uncached image's, so that small savings do not decide.
REFERENCE_COST = 0.8
# Part of the names of all studies of a mode but the first.
STUDY = ", study "
_RESAMPLES = 200


class Scorer:
    """Scores images for their prompts, and compares them with uncached images and a reference set.

    Args:
        prompts: one per image.
        uncached: uint8 (n, height, width, 3).
        reference: uncached images with other seeds, for FID.
        lpips: the LPIPS distance, or None if its weights are missing.
        frames: of each video, which is an image of its frames one below the other; 1 for images.
    """

    def __init__(
        self,
        prompts: Sequence[str],
        uncached: np.ndarray,
        reference: np.ndarray,
        lpips: Any = None,
        frames: int = 1,
    ) -> None:
        self.prompts, self.lpips, self.frames = [text for text in prompts for _ in range(frames)], lpips, frames
        self.uncached = self._frames_of(uncached)
        self.judge = Judge()
        self.directions = self.judge.embed_images(self.uncached)
        self.reference = self.judge.features(self._frames_of(reference))

    def _frames_of(self, images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images) * self.frames, -1, *images.shape[2:])

    def scores(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Score -> float64 (n,); that of a video is the mean of its frames'."""
        each = self._of_frames(self._frames_of(images))
        return {name: values.reshape(-1, self.frames).mean(axis=1) for name, values in each.items()}

    def _of_frames(self, images: np.ndarray) -> dict[str, np.ndarray]:
        similarity = (self.judge.embed_images(images) * self.directions).sum(dim=-1)
        found = {
            "judge": self.judge.score(images, self.prompts),
            "psnr": psnr(images, self.uncached),
            "ssim": ssim(images, self.uncached),
            "judge_distance": 1 - np.asarray(similarity.double()),
        }
        return found | ({} if self.lpips is None else {"lpips": self.lpips(images, self.uncached)})

    def fid(self, images: np.ndarray) -> dict[str, float]:
        """FID on the judge's features, with a bootstrap interval.

        Resampled images repeat, which increases the FID of any set, so the interval is centred on the FID itself.
        """
        features = self.judge.features(self._frames_of(images))
        target = Statistics.of(self.reference)
        value = fid(Statistics.of(features), target)
        drawn = np.random.default_rng(0).integers(len(features), size=(_RESAMPLES, len(features)))
        spread = np.array([fid(Statistics.of(features[index]), target) for index in drawn])
        low, high = np.percentile(spread - spread.mean(), [2.5, 97.5])
        return {"mean": value, "low": max(0.0, value + float(low)), "high": value + float(high)}


def summary(scores: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """The mean and 95% interval of each score."""
    found = {}
    for name, values in scores.items():
        low, high = mean_interval(values)
        found[name] = {"mean": float(values.mean()), "low": low, "high": high}
    return found


def compared(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The scores of `COMPARED` that all rows have; LPIPS needs weights."""
    return [score for score in COMPARED if all(score in row["scores"] for row in rows)]


def larger_is_better(score: str, value: Any) -> Any:
    """A score, or an array of scores, with the sign for which larger is better."""
    return -value if score in DISTANCES else value


def is_ours(rival: str) -> bool:
    return rival.startswith("ecad ")


def is_first(rival: str) -> bool:
    """Whether a rival is another method, or the first study of one of ecad's modes."""
    return STUDY not in rival


def best_at(rows: Sequence[dict[str, Any]], level: float, score: str) -> dict[str, Any] | None:
    """The best of the settings that cost at most 1 / level of uncached."""
    affordable = [row for row in rows if row["cost"] * level <= TOLERANCE]
    return max(affordable, key=lambda row: larger_is_better(score, row["scores"][score]["mean"]), default=None)


def levels_of(result: Mapping[str, Any]) -> list[float]:
    """The levels at which a comparison was made; earlier files end at 4."""
    return sorted({entry["level"] for found in result["verdicts"].values() for entry in found})


def verdicts(rows: Sequence[dict[str, Any]], values: Mapping[str, Mapping[str, np.ndarray]]) -> list[dict[str, Any]]:
    """Compare ecad's best setting with each rival's, at each level of cost and for each score.

    The difference is paired by image. "above" and "below" mean that zero is outside of its 95% interval.

    Args:
        rows: the rows of the table.
        values: key -> score -> float (n,).
    """
    rivals = list(dict.fromkeys(row["rival"] for row in rows if not is_ours(row["rival"])))
    found = []
    for score in compared(rows):
        for level in LEVELS:
            ours = best_at([row for row in rows if is_ours(row["rival"]) and is_first(row["rival"])], level, score)
            for rival in rivals if ours else []:
                theirs = best_at([row for row in rows if row["rival"] == rival], level, score)
                entry = {"score": score, "level": level, "rival": rival, "ours": ours["key"]}
                if theirs is None:
                    found.append({**entry, "theirs": None, "verdict": "does not go there"})
                    continue
                found.append({**entry, "theirs": theirs["key"], **_lead(ours, theirs, values, score)})
    return found


def leads_by_study(
    rows: Sequence[dict[str, Any]], values: Mapping[str, Mapping[str, np.ndarray]], score: str
) -> dict[str, dict[float, dict[str, Any]]]:
    """Compare each study of ecad separately with the best rival at each level.

    Args:
        rows, values: as for `verdicts`.
        score: the score to compare.

    Returns:
        study -> level -> rival, lead, its interval and verdict, at the levels that both reach.
    """
    found: dict[str, dict[float, dict[str, Any]]] = {}
    theirs = [row for row in rows if not is_ours(row["rival"])]
    for study in dict.fromkeys(row["rival"] for row in rows if is_ours(row["rival"])):
        own = [row for row in rows if row["rival"] == study]
        for level in LEVELS:
            ours, best = best_at(own, level, score), best_at(theirs, level, score)
            if ours is not None and best is not None:
                entry = {"rival": best["rival"], **_lead(ours, best, values, score)}
                found.setdefault(study, {})[level] = entry
    return found


def _lead(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], values: Mapping[str, Mapping[str, np.ndarray]], score: str
) -> dict[str, Any]:
    lead = larger_is_better(score, values[ours["key"]][score] - values[theirs["key"]][score])
    low, high = mean_interval(lead)
    verdict = "above" if low > 0 else "below" if high < 0 else "level"
    return {"lead": float(lead.mean()), "low": low, "high": high, "verdict": verdict}


def areas(rows: Sequence[dict[str, Any]], worst: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Rival -> score -> the hypervolume of its front, from `REFERENCE_COST` and the worst quality.

    Args:
        rows: the rows of the table.
        worst: score -> mean of images for which everything is reused after the first step.
    """
    found: dict[str, dict[str, float]] = {}
    groups = {rival: [row for row in rows if row["rival"] == rival] for rival in {row["rival"] for row in rows}}
    groups["ecad, both modes"] = [row for row in rows if is_ours(row["rival"]) and is_first(row["rival"])]
    for rival, members in groups.items():
        costs = np.array([row["cost"] for row in members])
        found[rival] = {
            score: hypervolume(
                costs,
                larger_is_better(score, np.array([row["scores"][score]["mean"] for row in members])),
                REFERENCE_COST,
                larger_is_better(score, worst[score]),
            )
            for score in compared(rows)
            if members
        }
    return found


def row_of(setting: Setting, found: Mapping[str, Any], scorer: Scorer, uncached: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the table without times, and with its `values` by image."""
    values = scorer.scores(found["images"])
    return {
        "key": setting.key,
        "rival": setting.rival,
        "name": setting.name,
        "parameters": dict(setting.parameters),
        "macs": float(found["macs"].mean()),
        "cost": float(found["macs"].mean() / uncached["macs"].mean()),
        "kept_bytes": max(0.0, float(found["kept"] - uncached["kept"])),
        "peak_bytes": float(found["peak"]),
        "scores": summary(values) | {"fid": scorer.fid(found["images"])},
        "values": values,
    }
