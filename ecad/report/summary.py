"""The numbers of a report as text, the points of its plots, and its headline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np

from ecad.report.results import Candidate, Entry, Interval, Results
from ecad.schedules.schedule import Bits
from ecad.utils.pareto import pareto

Cost = Literal["macs", "time", "expected", "memory"]

NOT_MEASURED = "–"
_UNITS = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def macs_unit(macs: Sequence[int]) -> tuple[float, str]:
    """The unit for counts of MACs: its factor and prefix, so that the largest count is at least 1."""
    largest = max(macs, default=0)
    return next(((factor, unit) for factor, unit in _UNITS if largest >= factor), (1.0, ""))


def macs_text(macs: int, beside: Sequence[int] = ()) -> str:
    """Format a count of MACs with four digits, in the unit of the largest of the counts beside it.

    >>> macs_text(5_713_796_136_960), macs_text(999), macs_text(864_000_000, beside=[3_330_000_000])
    ('5.714 T', '999', '0.864 G')
    """
    factor, unit = macs_unit([macs, *beside])
    if not unit:
        return str(macs)
    largest = max(macs, *beside, 0) / factor
    return f"{macs / factor:.{3 - len(str(int(largest))) + 1}f} {unit}"


def ratio_text(ratio: float | None) -> str:
    """Format a ratio.

    >>> ratio_text(2.8296), ratio_text(None)
    ('2.83×', '–')
    """
    return NOT_MEASURED if ratio is None else f"{ratio:.2f}×"


def macs_ratio(results: Results, entry: Entry) -> float | None:
    """The MAC reduction of an entry: uncached MACs divided by its own; None without an uncached entry."""
    return None if results.uncached is None else results.uncached.macs / entry.macs


def decimals(results: Results, scorer: str) -> int:
    """The number of decimals for one scorer, the same for all entries: small scores need more of them."""
    means = [abs(entry.scores[scorer].mean) for entry in results.entries if scorer in entry.scores]
    return 2 if max(means, default=0) >= 10 else 3


def score_text(score: Interval | None, digits: int) -> str:
    """Format a mean with its confidence interval.

    >>> score_text(Interval(27.125, 26.5, 27.75), 1)
    '27.1 [26.5, 27.8]'
    """
    if score is None:
        return NOT_MEASURED
    return f"{score.mean:.{digits}f} [{score.low:.{digits}f}, {score.high:.{digits}f}]"


def quality_text(quality: float | None) -> str:
    """Format a quality.

    >>> quality_text(31.2345), quality_text(None)
    ('31.23', '–')
    """
    return NOT_MEASURED if quality is None else f"{quality:.4g}"


def bytes_text(count: int | None) -> str:
    """Format a number of bytes.

    >>> bytes_text(99_090_432), bytes_text(8_192), bytes_text(0), bytes_text(None)
    ('99.1 MB', '8.19 kB', '0 MB', '–')
    """
    if count is None:
        return NOT_MEASURED
    return f"{count / 1e3:.3g} kB" if 0 < count < 100_000 else f"{count / 1e6:.3g} MB"


def expected_text(nanoseconds: int | None) -> str:
    """Format an expected time per image.

    >>> expected_text(12_345_678), expected_text(None)
    ('12.3 ms', '–')
    """
    return NOT_MEASURED if nanoseconds is None else f"{nanoseconds / 1e6:.1f} ms"


def duration_text(seconds: float) -> str:
    """Format a duration.

    >>> [duration_text(seconds) for seconds in (9.4, 192, 7500)]
    ['9 s', '3 min 12 s', '2 h 05 min']
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, past = divmod(minutes, 60)
    if hours:
        return f"{hours} h {past:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


class Point(NamedTuple):
    """An entry in a plot of quality against cost, with its position in `Results.ordered()` and its interval."""

    position: int
    entry: Entry
    cost: float
    quality: float
    low: float
    high: float


class Axis(NamedTuple):
    """A cost axis: its title, and the factor from its unit to the cost."""

    title: str
    factor: float


def cost_of(one: Entry | Candidate, cost: Cost) -> float | None:
    """A cost of an entry or candidate per image; None if it is unknown.

    Args:
        one: the entry or candidate.
        cost: "macs"; "time" as measured, relative to uncached; "expected" time in nanoseconds; or "memory", the peak
            of cached bytes.
    """
    if cost == "time":
        return 1 / one.time_ratio if isinstance(one, Entry) and one.time_ratio is not None else None
    return {"macs": one.macs, "expected": one.expected_ns, "memory": one.kept_bytes}[cost]


def cost_axis(results: Results, cost: Cost) -> Axis:
    """The axis of a cost."""
    if cost == "time":
        return Axis("measured time per image, uncached = 1", 1.0)
    if cost == "expected":
        return Axis("expected time per image in ms", 1e6)
    if cost == "memory":
        return Axis("cache memory in MB", 1e6)
    factor, unit = plot_unit(results)
    return Axis(f"{unit}MACs per image", factor)


def held_out_points(results: Results, scorer: str, cost: Cost = "macs") -> list[Point]:
    """The entries with a held-out score of one scorer."""
    return [
        # Rounding may put the mean of equal scores outside its interval.
        Point(i, entry, spent, score.mean, min(score.low, score.mean), max(score.high, score.mean))
        for i, entry in enumerate(results.ordered())
        if (score := entry.scores.get(scorer)) is not None and (spent := cost_of(entry, cost)) is not None
    ]


def search_points(results: Results, cost: Cost = "macs") -> list[Point]:
    """The entries with a known quality on the search prompts."""
    return [
        Point(i, entry, spent, quality, quality, quality)
        for i, entry in enumerate(results.ordered())
        if (quality := entry.search_quality) is not None and (spent := cost_of(entry, cost)) is not None
    ]


def front(points: Sequence[Point]) -> list[Point]:
    """The non-dominated points, cheapest first."""
    best = pareto(np.array([point.cost for point in points]), np.array([point.quality for point in points]))
    return [points[i] for i in best]


def packed(recompute: Bits) -> bytes:
    """A schedule's bits, eight per byte, as in the page and in `Candidate.bits`."""
    return np.packbits(recompute).tobytes()


def plot_unit(results: Results) -> tuple[float, str]:
    """The unit of MACs for all plots of these results (see `macs_unit`)."""
    return macs_unit([entry.macs for entry in results.entries] + [other.macs for other in results.candidates])


def opacity_of(count: int) -> float:
    """The opacity for a number of points, so that dense regions stay visible.

    >>> opacity_of(100), opacity_of(2_000), opacity_of(100_000)
    (0.5, 0.3, 0.1)
    """
    return min(0.5, max(0.1, 600 / max(1, count)))


def main_scorer(results: Results) -> str | None:
    """The scorer of the headline: the one that the search maximized, if there are held-out scores of it."""
    scorers = results.scorers
    return results.quality_name if results.quality_name in scorers else next(iter(scorers), None)


def dominated(results: Results, scorer: str) -> list[Entry]:
    """The baselines that a found schedule dominates: at most their MACs, at least their mean, and better in one."""
    scored = [entry for entry in results.ordered() if scorer in entry.scores]

    def better(found: Entry, baseline: Entry) -> bool:
        gain = found.scores[scorer].mean - baseline.scores[scorer].mean
        return found.macs <= baseline.macs and gain >= 0 and (found.macs < baseline.macs or gain > 0)

    found = [entry for entry in scored if entry.kind == "found"]
    return [entry for entry in scored if entry.kind == "baseline" and any(better(other, entry) for other in found)]


def highlighted(results: Results, scorer: str) -> Entry | None:
    """The found schedule of the headline.

    This is the cheapest one whose mean is within the uncached confidence interval, or else the one that dominates the
    largest area.
    """
    found = [entry for entry in results.entries if entry.kind == "found" and scorer in entry.scores]
    uncached = results.uncached
    if uncached is not None and scorer in uncached.scores:
        floor = uncached.scores[scorer].low
        if close := [entry for entry in found if entry.scores[scorer].mean >= floor]:
            return min(close, key=lambda entry: entry.macs)
    worst = min((entry.scores[scorer].mean for entry in found), default=0.0)
    most = uncached.macs if uncached is not None else max((entry.macs for entry in found), default=0)

    def area(entry: Entry) -> tuple[float, float]:
        """The area between the entry and the uncached cost and worst score; equal areas are sorted by score."""
        return (most - entry.macs) * (entry.scores[scorer].mean - worst), entry.scores[scorer].mean

    return max(found, key=area, default=None)


def recommended(results: Results) -> Entry | None:
    """The found schedule to begin with: by held-out scores, or before there are any, by the search's own."""
    scorer = main_scorer(results)
    if scorer is not None:
        return highlighted(results, scorer)
    searched = [
        replace(entry, scores={"search": Interval(entry.search_quality, entry.search_quality, entry.search_quality)})
        for entry in results.entries
        if entry.search_quality is not None and entry.kind == "found"
    ]
    uncached = [replace(results.uncached, scores={})] if results.uncached else []
    best = highlighted(replace(results, entries=(*uncached, *searched)), "search")
    return next((entry for entry in results.entries if best and entry.name == best.name), None)


def label(results: Results, entry: Entry) -> str:
    """What tells an entry from others at a glance: its MAC reduction and its quality; empty for the uncached one.

    The quality is by the main scorer, or before there is a held-out score, the search's.
    """
    if entry.kind == "uncached":
        return ""
    scorer = main_scorer(results)
    name = scorer or results.quality_name
    score = entry.scores.get(name)
    quality = entry.search_quality if scorer is None else score and score.mean
    told = [ratio_text(macs_ratio(results, entry))] if results.uncached else []
    if quality is not None:
        told.append(f"{quality:.1f} dB" if name == "psnr" else f"{name} {quality:.3g}")
    return ", ".join(told)


def headline(results: Results) -> str:
    """Recommend a schedule, and summarize the held-out scores, in one to three sentences."""
    scorer = main_scorer(results)
    entry = recommended(results)
    if scorer is None or entry is None:
        told = "No found schedule has a held-out score yet"
        return f"{told}." if entry is None else f"{told}. Recommended so far: {entry.name} ({label(results, entry)})."
    digits, uncached = decimals(results, scorer), results.uncached
    sentences = []
    if uncached is not None:
        faster = "" if entry.time_ratio is None else f" and a measured speed-up of {ratio_text(entry.time_ratio)}"
        reduction = ratio_text(macs_ratio(results, entry))
        sentences.append(f"Recommended: {entry.name}, with a MAC reduction of {reduction}{faster}")
    score = f"Its {scorer} score on held-out prompts is {score_text(entry.scores[scorer], digits)}"
    if uncached is not None and scorer in uncached.scores:
        score += f", uncached {score_text(uncached.scores[scorer], digits)}"
    sentences.append(score if sentences else f"{entry.name}: {score[0].lower()}{score[1:]}")
    if any(other.kind == "baseline" and scorer in other.scores for other in results.entries):
        sentences.append(_comparison(dominated(results, scorer)))
    return ". ".join(sentences) + "."


def _comparison(baselines: Sequence[Entry]) -> str:
    if not baselines:
        return "No found schedule dominates a hand-made one"
    return f"Found schedules dominate {joined([entry.name for entry in baselines])} in MACs and mean score"


def joined(names: Sequence[str]) -> str:
    """Join names with commas and "and".

    >>> joined(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
