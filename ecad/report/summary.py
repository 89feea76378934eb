"""The words and numbers of a report: formats, the front, and the sentence on top."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from ecad.report.results import Candidate, Entry, Interval, Results
from ecad.schedules.schedule import Bits
from ecad.utils.pareto import pareto

Cost = Literal["macs", "time", "expected", "memory"]

NOT_MEASURED = "–"
_UNITS = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def macs_unit(macs: Sequence[int]) -> tuple[float, str]:
    """The factor and prefix in which the largest of some counts has at least one digit before the point."""
    largest = max(macs, default=0)
    return next(((factor, unit) for factor, unit in _UNITS if largest >= factor), (1.0, ""))


def macs_text(macs: int, beside: Sequence[int] = ()) -> str:
    """A count of MACs to four digits, in the unit that suits the counts it stands beside.

    >>> macs_text(5_713_796_136_960), macs_text(999), macs_text(864_000_000, beside=[3_330_000_000])
    ('5.714 T', '999', '0.864 G')
    """
    factor, unit = macs_unit([macs, *beside])
    if not unit:
        return str(macs)
    largest = max(macs, *beside, 0) / factor
    return f"{macs / factor:.{3 - len(str(int(largest))) + 1}f} {unit}"


def ratio_text(ratio: float | None) -> str:
    """How many times fewer or faster.

    >>> ratio_text(2.8296), ratio_text(None)
    ('2.83×', '–')
    """
    return NOT_MEASURED if ratio is None else f"{ratio:.2f}×"


def macs_ratio(results: Results, entry: Entry) -> float | None:
    """How many times fewer MACs than uncached; None without an uncached entry."""
    return None if results.uncached is None else results.uncached.macs / entry.macs


def decimals(results: Results, scorer: str) -> int:
    """Digits after the point for one scorer, the same for all entries: small scores need more of them."""
    means = [abs(entry.scores[scorer].mean) for entry in results.entries if scorer in entry.scores]
    return 2 if max(means, default=0) >= 10 else 3


def score_text(score: Interval | None, digits: int) -> str:
    """A mean with its interval.

    >>> score_text(Interval(27.125, 26.5, 27.75), 1)
    '27.1 [26.5, 27.8]'
    """
    if score is None:
        return NOT_MEASURED
    return f"{score.mean:.{digits}f} [{score.low:.{digits}f}, {score.high:.{digits}f}]"


def quality_text(quality: float | None) -> str:
    """
    >>> quality_text(31.2345), quality_text(None)
    ('31.23', '–')
    """
    return NOT_MEASURED if quality is None else f"{quality:.4g}"


def bytes_text(count: int | None) -> str:
    """
    >>> bytes_text(99_090_432), bytes_text(8_192), bytes_text(0), bytes_text(None)
    ('99.1 MB', '8.19 kB', '0 MB', '–')
    """
    if count is None:
        return NOT_MEASURED
    return f"{count / 1e3:.3g} kB" if 0 < count < 100_000 else f"{count / 1e6:.3g} MB"


def expected_text(nanoseconds: int | None) -> str:
    """
    >>> expected_text(12_345_678), expected_text(None)
    ('12.3 ms', '–')
    """
    return NOT_MEASURED if nanoseconds is None else f"{nanoseconds / 1e6:.1f} ms"


def duration_text(seconds: float) -> str:
    """
    >>> [duration_text(seconds) for seconds in (9.4, 192, 7500)]
    ['9 s', '3 min 12 s', '2 h 05 min']
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, past = divmod(minutes, 60)
    if hours:
        return f"{hours} h {past:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


class Point(NamedTuple):
    """An entry in a plot of quality against cost: its place in `Results.ordered`, its cost, quality, the interval."""

    place: int
    entry: Entry
    cost: float
    quality: float
    low: float
    high: float


class Axis(NamedTuple):
    """An axis of costs: its title, and the cost of one of its units."""

    title: str
    factor: float


def cost_of(one: Entry | Candidate, cost: Cost) -> float | None:
    """MACs of an image; its time as measured, uncached being 1, or as expected; or the most bytes kept.

    None where it is not known.
    """
    if cost == "time":
        return 1 / one.time_ratio if isinstance(one, Entry) and one.time_ratio is not None else None
    return {"macs": one.macs, "expected": one.expected_ns, "memory": one.kept_bytes}[cost]


def cost_axis(results: Results, cost: Cost) -> Axis:
    """How a cost is shown."""
    if cost == "time":
        return Axis("measured time of an image, uncached = 1", 1.0)
    if cost == "expected":
        return Axis("expected milliseconds of an image", 1e6)
    if cost == "memory":
        return Axis("megabytes of features kept", 1e6)
    factor, unit = plot_unit(results)
    return Axis(f"{unit}MACs of an image", factor)


def held_out_points(results: Results, scorer: str, cost: Cost = "macs") -> list[Point]:
    """The entries that one scorer has judged on held-out prompts."""
    return [
        # The last digit of equal scores may differ between a mean and its interval.
        Point(i, entry, spent, score.mean, min(score.low, score.mean), max(score.high, score.mean))
        for i, entry in enumerate(results.ordered())
        if (score := entry.scores.get(scorer)) is not None and (spent := cost_of(entry, cost)) is not None
    ]


def search_points(results: Results, cost: Cost = "macs") -> list[Point]:
    """The entries whose quality on the search's own prompts is known."""
    return [
        Point(i, entry, spent, quality, quality, quality)
        for i, entry in enumerate(results.ordered())
        if (quality := entry.search_quality) is not None and (spent := cost_of(entry, cost)) is not None
    ]


def front(points: Sequence[Point]) -> list[Point]:
    """The points that no other one equals or beats in both cost and quality, cheapest first."""
    best = pareto(np.array([point.cost for point in points]), np.array([point.quality for point in points]))
    return [points[i] for i in best]


def packed(recompute: Bits) -> bytes:
    """A schedule's bits, eight to a byte, as the page and `Candidate.bits` have them."""
    return np.packbits(recompute).tobytes()


def plot_unit(results: Results) -> tuple[float, str]:
    """The unit of MACs that suits all plots of these results, as `macs_unit` gives it."""
    return macs_unit([entry.macs for entry in results.entries] + [other.macs for other in results.candidates])


def faintness(count: int) -> float:
    """The opacity at which a cloud of so many points still shows where it is dense.

    >>> faintness(100), faintness(2_000), faintness(100_000)
    (0.5, 0.3, 0.1)
    """
    return min(0.5, max(0.1, 600 / max(1, count)))


def main_scorer(results: Results) -> str | None:
    """The scorer that sentences are about: the one that was searched for, if held-out images have it."""
    scorers = results.scorers
    return results.quality_name if results.quality_name in scorers else next(iter(scorers), None)


def beaten(results: Results, scorer: str) -> list[Entry]:
    """The baselines to which a found schedule is preferable: no more MACs, no lower mean, and better in one of them."""
    scored = [entry for entry in results.ordered() if scorer in entry.scores]

    def better(found: Entry, baseline: Entry) -> bool:
        gain = found.scores[scorer].mean - baseline.scores[scorer].mean
        return found.macs <= baseline.macs and gain >= 0 and (found.macs < baseline.macs or gain > 0)

    found = [entry for entry in scored if entry.kind == "found"]
    return [entry for entry in scored if entry.kind == "baseline" and any(better(other, entry) for other in found)]


def pick(results: Results, scorer: str) -> Entry | None:
    """The found schedule to speak of: the cheapest that stays within the uncached interval, else the best bargain."""
    found = [entry for entry in results.entries if entry.kind == "found" and scorer in entry.scores]
    uncached = results.uncached
    if uncached is not None and scorer in uncached.scores:
        floor = uncached.scores[scorer].low
        if close := [entry for entry in found if entry.scores[scorer].mean >= floor]:
            return min(close, key=lambda entry: entry.macs)
    worst = min((entry.scores[scorer].mean for entry in found), default=0.0)
    most = uncached.macs if uncached is not None else max((entry.macs for entry in found), default=0)

    def area(entry: Entry) -> tuple[float, float]:
        """What it dominates alone, from the uncached cost and the worst score; the score decides among equals."""
        return (most - entry.macs) * (entry.scores[scorer].mean - worst), entry.scores[scorer].mean

    return max(found, key=area, default=None)


def headline(results: Results) -> str:
    """What was found, in one to three sentences, by the held-out scores alone."""
    scorer = main_scorer(results)
    entry = None if scorer is None else pick(results, scorer)
    if scorer is None or entry is None:
        return "There is no found schedule with a held-out score yet."
    digits, uncached = decimals(results, scorer), results.uncached
    sentences = []
    if uncached is not None:
        faster = "" if entry.time_ratio is None else f" and is {ratio_text(entry.time_ratio)} as fast"
        fewer = ratio_text(macs_ratio(results, entry))
        sentences.append(f"{entry.name} needs {fewer} fewer MACs than uncached{faster}")
    score = f"Its {scorer} score on held-out prompts is {score_text(entry.scores[scorer], digits)}"
    if uncached is not None and scorer in uncached.scores:
        score += f", uncached {score_text(uncached.scores[scorer], digits)}"
    sentences.append(score if sentences else f"{entry.name}: {score[0].lower()}{score[1:]}")
    if any(other.kind == "baseline" and scorer in other.scores for other in results.entries):
        sentences.append(_comparison(beaten(results, scorer)))
    return ". ".join(sentences) + "."


def _comparison(beaten: Sequence[Entry]) -> str:
    if not beaten:
        return "No found schedule beats a hand-made one"
    return f"Found schedules beat {joined([entry.name for entry in beaten])}: no more MACs, a mean score no lower"


def joined(names: Sequence[str]) -> str:
    """
    >>> joined(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
