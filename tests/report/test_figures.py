from __future__ import annotations

from dataclasses import replace

import numpy as np
from example_results import HOSTILE, evolved

from ecad.report import Candidate, Results
from ecad.report.figures import FRAMES, MAX_POINTS, front_figure, history_figure, surrogate_figure, thinned
from ecad.schedules import flux_sites, heuristics
from ecad.schedules.figure import age, schedule_figure
from ecad.utils.plot_style import escaped


def by_name(figure: object) -> dict[str, object]:
    return {trace.name: trace for trace in figure.data}  # type: ignore[attr-defined]


def test_a_heat_map_holds_the_share_of_each_step_and_block() -> None:
    cells, above, beside = schedule_figure(evolved()).data
    np.testing.assert_array_equal(cells.z, [[1, 0, 1, 0], [1, 0, 0, 0]])
    assert cells.y == beside.y == ("0", "1")
    assert cells.x == above.x == (0, 1, 2, 3)
    assert above.y == (1, 0, 0.5, 0)
    assert beside.x == (0.5, 0.25)
    mixed = heuristics.every_n(evolved().sites, 4, 2, ["attn1", "ff"])
    np.testing.assert_allclose(schedule_figure(mixed).data[0].z, [[1, 1 / 3, 1, 1 / 3]] * 2, rtol=1e-6)
    np.testing.assert_array_equal(schedule_figure(mixed, "attn2").data[0].z, np.ones((2, 4)))


def test_features_age_until_they_are_computed() -> None:
    np.testing.assert_array_equal(
        age(np.array([[0, 1], [0, 0], [1, 0], [0, 1]], bool)), [[0, 0], [1, 1], [0, 2], [1, 0]]
    )
    np.testing.assert_array_equal(schedule_figure(evolved(), ages=True).data[0].z, [[0, 1, 0, 1], [0, 1, 2, 3]])


def test_a_component_is_shown_in_the_blocks_that_have_it() -> None:
    schedule = heuristics.none(flux_sites(2, 3), 5)
    assert schedule_figure(schedule, "single_attn").data[0].y == ("single_0", "single_1", "single_2")
    assert schedule_figure(schedule).data[0].z.shape == (5, 5)
    assert schedule_figure(schedule).layout.yaxis.type == "category"


def test_held_out_points_carry_their_entry_and_interval(results: Results) -> None:
    traces = by_name(front_figure(results, "judge"))
    found, baseline = traces["found by the search"], traces["hand-made"]
    assert (found.x, found.y, found.customdata) == ((1.25,), (26.5,), (2,))  # type: ignore[attr-defined]
    assert found.error_y.array == (1.25,)  # type: ignore[attr-defined]
    assert found.error_y.arrayminus == (1.25,)  # type: ignore[attr-defined]
    assert baseline.text == (f"  {escaped(HOSTILE)}  ",)  # type: ignore[attr-defined]
    assert results.ordered()[2].name == "found-1"


def test_each_cost_has_its_own_axis_and_only_what_is_known(results: Results) -> None:
    timed = by_name(front_figure(results, "judge", "time"))
    assert timed["found by the search"].x == (0.4,)  # type: ignore[attr-defined]
    assert timed["hand-made"].x == ()  # type: ignore[attr-defined]
    kept = replace(results, entries=[replace(entry, kept_bytes=2_500_000) for entry in results.entries])
    assert by_name(front_figure(kept, "judge", "memory"))["hand-made"].x == (2.5,)  # type: ignore[attr-defined]


def test_the_search_view_never_mixes_in_held_out_scores(results: Results) -> None:
    traces = by_name(front_figure(results))
    assert traces["evaluated"].y == (25.0, 27.5)  # type: ignore[attr-defined]
    assert traces["evaluated"].customdata == (3, 4)  # type: ignore[attr-defined]
    assert traces["found by the search"].y == (27.0,)  # type: ignore[attr-defined]
    assert traces["hand-made"].y == ()  # type: ignore[attr-defined]  # its quality on the search's prompts is not known


def test_the_slider_shows_what_each_generation_brought(results: Results) -> None:
    first, second, everything = front_figure(results).frames
    assert [frame.name for frame in (first, second, everything)] == ["0", "1", "all"]
    assert (first.data[0].x, second.data[0].x) == ((1.0,), (3.0,))
    assert (first.data[1].x, second.data[1].x) == ((1.0,), (1.0, 3.0))
    assert second.data[0].customdata == (4,)
    many = tuple(Candidate(g, 1000 - g, float(g)) for g in range(300))
    frames = front_figure(replace(results, candidates=many)).frames
    assert len(frames) == FRAMES + 1
    assert sum(len(frame.data[0].x) for frame in frames[:-1]) == 300
    assert frames[-2].data[1].x == (0.701e-6,)


def test_candidates_are_thinned_away_from_the_front() -> None:
    rng = np.random.default_rng(0)
    cost, quality = rng.random(5000), rng.random(5000)
    kept = thinned(cost, quality)
    assert len(kept) == len(set(kept.tolist())) == MAX_POINTS
    # The best of every range of costs: the front itself stands in the plot anyway.
    for part in np.array_split(np.argsort(cost), MAX_POINTS // 8):
        assert part[quality[part].argmax()] in kept


def test_a_schedule_plots_itself() -> None:
    mixed = heuristics.every_n(evolved().sites, 4, 2, ["ff"])
    assert mixed.plot().to_json() == schedule_figure(mixed).to_json()
    assert mixed.plot("ff").to_json() == schedule_figure(mixed, "ff").to_json() != mixed.plot().to_json()


def test_history_and_guesses(results: Results) -> None:
    drawn = history_figure(results).data[0]
    assert (drawn.x, drawn.y) == ((32, 64), (0.25, 0.5))
    line, points = surrogate_figure(results).data
    assert (points.x, points.y) == ((26.0, 27.0), (25.0, 27.5))
    assert line.x == line.y == (25.0, 27.5)


def test_names_cannot_bring_markup_into_a_plot(results: Results) -> None:
    for figure in (front_figure(results, "judge"), front_figure(results)):
        shown = repr([(trace.text, trace.hovertext) for trace in figure.data])
        assert "<script" not in shown
        assert "$" not in shown
