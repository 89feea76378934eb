from __future__ import annotations

import numpy as np

from ecad.report import Results
from ecad.report.figures import escaped, held_out_figure, history_figures, schedule_figure, search_figure
from ecad.schedules import flux_sites, heuristics

from .conftest import HOSTILE, evolved


def by_name(figure: object) -> dict[str, object]:
    return {trace.name: trace for trace in figure.data}  # type: ignore[attr-defined]


def test_a_heat_map_holds_the_share_of_each_step_and_block() -> None:
    (trace,) = schedule_figure(evolved()).data
    np.testing.assert_array_equal(trace.z, [[1, 0, 1, 0], [1, 0, 0, 0]])
    assert trace.y == ("0", "1")
    assert trace.x == (0, 1, 2, 3)
    mixed = heuristics.every_n(evolved().sites, 4, 2, ["attn1", "ff"])
    np.testing.assert_allclose(schedule_figure(mixed).data[0].z, [[1, 1 / 3, 1, 1 / 3]] * 2, rtol=1e-6)
    np.testing.assert_array_equal(schedule_figure(mixed, "attn2").data[0].z, np.ones((2, 4)))


def test_a_component_is_shown_in_the_blocks_that_have_it() -> None:
    schedule = heuristics.none(flux_sites(2, 3), 5)
    assert schedule_figure(schedule, "single_attn").data[0].y == ("single_0", "single_1", "single_2")
    assert schedule_figure(schedule).data[0].z.shape == (5, 5)
    assert schedule_figure(schedule).layout.yaxis.type == "category"


def test_held_out_points_carry_their_entry_and_interval(results: Results) -> None:
    traces = by_name(held_out_figure(results, "judge"))
    found, baseline = traces["found by the search"], traces["hand-made"]
    assert (found.x, found.y, found.customdata) == ((1.25,), (26.5,), (2,))  # type: ignore[attr-defined]
    assert found.error_y.array == (1.25,)  # type: ignore[attr-defined]
    assert found.error_y.arrayminus == (1.25,)  # type: ignore[attr-defined]
    assert baseline.text == (f"  {escaped(HOSTILE)}  ",)  # type: ignore[attr-defined]
    assert results.ordered()[2].name == "found-1"


def test_the_search_view_never_mixes_in_held_out_scores(results: Results) -> None:
    traces = by_name(search_figure(results))
    assert traces["evaluated"].y == (25.0, 27.5)  # type: ignore[attr-defined]
    assert traces["found by the search"].y == (27.0,)  # type: ignore[attr-defined]
    assert "hand-made" not in traces  # its quality on the search's prompts is not known


def test_history_is_drawn_against_images(results: Results) -> None:
    drawn = history_figures(results.history)
    assert {name: figure.data[0].y for name, figure in drawn.items()} == {
        "hypervolume": (0.25, 0.5),
        "schedules on the front": (1, 2),
    }
    assert drawn["hypervolume"].data[0].x == (32, 64)


def test_names_cannot_bring_markup_into_a_plot(results: Results) -> None:
    for figure in (held_out_figure(results, "judge"), search_figure(results)):
        shown = repr([(trace.text, trace.hovertext) for trace in figure.data])
        assert "<script" not in shown
        assert "$" not in shown
