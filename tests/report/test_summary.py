from __future__ import annotations

from dataclasses import replace

from example_results import HOSTILE
from hypothesis import given
from hypothesis import strategies as st

from ecad.report import Interval, Results, headline
from ecad.report.summary import (
    Point,
    decimals,
    dominated,
    front,
    held_out_points,
    highlighted,
    label,
    macs_text,
    main_scorer,
    recommended,
)


def scored(results: Results, **means: float) -> Results:
    """The same with other judge scores, by entry."""
    entries = [
        replace(entry, scores={"judge": Interval(mean, mean - 1, mean + 1)})
        for entry, mean in zip(results.entries, means.values(), strict=True)
    ]
    return replace(results, entries=entries)


def test_the_headline_says_what_was_found_and_what_it_dominates(results: Results) -> None:
    assert headline(results) == (
        "Recommended: found-1, with a MAC reduction of 3.20× and a measured speed-up of 2.50×. "
        "Its judge score on held-out prompts is 26.50 [25.25, 27.75], uncached 27.25 [26.00, 28.50]. "
        f"Found schedules dominate {HOSTILE} in MACs and mean score."
    )


def test_the_headline_claims_nothing_that_is_not_so(results: Results) -> None:
    worse = scored(results, found=20.0, uncached=27.0, baseline=26.0)
    assert headline(worse).endswith("No found schedule dominates a hand-made one.")
    none_found = replace(results, entries=results.entries[1:])
    assert headline(none_found) == "No found schedule has a held-out score yet."
    alone = replace(results, entries=results.entries[:1])
    assert headline(alone) == "found-1: its judge score on held-out prompts is 26.50 [25.25, 27.75]."


def test_the_headline_speaks_of_the_cheapest_within_the_uncached_interval(results: Results) -> None:
    found, uncached, baseline = results.entries
    cheaper = replace(found, name="too cheap", macs=1_000, scores={"judge": Interval(25.5, 25.0, 26.0)})
    costlier = replace(found, name="dear", macs=3_000_000_000, scores={"judge": Interval(28.0, 27.0, 29.0)})
    within = replace(results, entries=(cheaper, costlier, found, uncached, baseline))
    assert highlighted(within, "judge") is found
    below = replace(results, entries=(cheaper, uncached))
    assert highlighted(below, "judge") is cheaper


def test_before_held_out_scores_the_search_recommends(results: Results) -> None:
    found, uncached, baseline = (replace(entry, scores={}) for entry in results.entries)
    dear = replace(found, name="dear", macs=3_900_000_000, search_quality=27.5)
    poor = replace(found, name="poor", macs=1_000_000_000, search_quality=1.0)
    known = replace(results, entries=(poor, dear, found, uncached, replace(baseline, search_quality=99.0)))
    assert recommended(known) is found
    told = "No found schedule has a held-out score yet. Recommended so far: found-1 (3.20×, judge 27)."
    assert headline(known) == told
    assert recommended(replace(known, entries=(uncached, baseline))) is None


def test_labels_tell_schedules_apart(results: Results) -> None:
    found, uncached, baseline = results.entries
    assert [label(results, entry) for entry in results.entries] == ["3.20×, judge 26.5", "", "2.00×, judge 26"]
    assert label(results, replace(baseline, scores={}, search_quality=20.0)) == "2.00×"
    by_psnr = replace(found, scores={"psnr": Interval(53.24, 52.0, 54.0)})
    assert label(replace(results, entries=(by_psnr, uncached), quality_name="psnr"), by_psnr) == "3.20×, 53.2 dB"


def test_equal_in_both_is_not_dominated(results: Results) -> None:
    found, _, baseline = results.entries
    same = replace(found, macs=baseline.macs, scores=baseline.scores)
    assert dominated(replace(results, entries=(same, baseline)), "judge") == []
    cheaper = replace(same, macs=same.macs - 1)
    assert dominated(replace(results, entries=(cheaper, baseline)), "judge") == [baseline]
    costlier = replace(found, macs=baseline.macs + 1)
    assert dominated(replace(results, entries=(costlier, baseline)), "judge") == []


def test_sentences_are_about_the_scorer_that_was_searched_for(results: Results) -> None:
    assert main_scorer(results) == "judge"
    assert main_scorer(replace(results, quality_name="similarity")) == "similarity"
    assert main_scorer(replace(results, quality_name="another")) == "judge"
    assert (decimals(results, "judge"), decimals(results, "similarity")) == (2, 3)


def test_an_interval_that_rounding_moved_off_its_mean_is_drawn_around_it(results: Results) -> None:
    entry = replace(results.entries[0], scores={"judge": Interval(1.0, 1.0 + 2**-50, 1.0 + 2**-50)})
    (point,) = held_out_points(replace(results, entries=(entry,)), "judge")
    assert point.low <= point.quality <= point.high


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 20)), max_size=12))
def test_the_front_is_what_comparing_all_pairs_gives(pairs: list[tuple[int, int]]) -> None:
    class Priced:
        def __init__(self, macs: int) -> None:
            self.macs = macs

    points = [Point(i, Priced(macs), macs, quality, quality, quality) for i, (macs, quality) in enumerate(pairs)]  # type: ignore[arg-type]
    expected = {
        (macs, quality)
        for macs, quality in pairs
        if not any(m <= macs and q >= quality and (m, q) != (macs, quality) for m, q in pairs)
    }
    assert [(point.entry.macs, point.quality) for point in front(points)] == sorted(expected)


def test_macs_keep_four_digits_in_the_unit_of_the_largest() -> None:
    assert macs_text(5_713_796_136_960) == "5.714 T"
    assert macs_text(57_137_961_369_600) == "57.14 T"
    assert macs_text(571_379_613_696, beside=[5_713_796_136_960]) == "0.571 T"
    assert macs_text(12) == "12"
