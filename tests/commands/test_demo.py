from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ecad.cli import main
from ecad.commands import demo
from ecad.report import Results
from ecad.schedules import CacheSchedule
from ecad.schedules.provenance import made_for
from ecad.schedules.sharing import card


class Point:
    """A candidate of a front, as far as `choose` looks at it."""

    def __init__(self, cost: int) -> None:
        self.cost = self.schedule = cost


def test_choose_takes_the_best_that_costs_no_more() -> None:
    front = [Point(cost) for cost in (1, 3, 6, 9)]
    assert demo.choose(front, [7, 5]) == {"found-1": 6, "found-2": 3}
    assert demo.choose(front, [5, 4, 0]) == {"found-1": 3}


def test_a_search_that_the_time_limit_ended_is_told_with_the_command_that_resumes_it() -> None:
    line = demo.stopped_early(0, 20, 2.5, Path("elsewhere"))
    assert line is not None
    assert "generation 0 of 20: `ecad demo -o elsewhere --max-minutes 10`" in line
    assert demo.stopped_early(20, 20, 2.5, Path("elsewhere")) is None


def test_a_short_demo_leaves_everything_but_a_page_that_needs_an_extra(
    tmp_path: Path, few_steps: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ecad.utils.extras.REPORT_PACKAGES", ("plotly_in_vain",))
    monkeypatch.setattr(demo, "POPULATION", 4)
    monkeypatch.setattr(demo, "SEARCH_PROMPTS", 2)
    monkeypatch.setattr(demo, "BATCH", 2)
    monkeypatch.setattr(demo, "TIMED_ROUNDS", 1)
    monkeypatch.setattr(sys, "argv", ["ecad", "demo", "-o", str(tmp_path), "--generations", "1", "--held-out", "6"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    results = Results.load(tmp_path)
    assert {"uncached", "every-2", "every-3", "every-4"} <= {entry.name for entry in results.entries}
    for entry in results.entries:
        assert entry.name in shown
        provenance, _ = made_for(entry.schedule.attributes)
        assert (provenance is not None) == (entry.kind == "found")
        if provenance is not None:
            assert provenance.held_out["judge"].mean == entry.scores["judge"].mean
            assert f"speed-up: {entry.time_ratio:.3g} on" in card(entry.schedule)
        assert CacheSchedule.load(tmp_path / "schedules" / f"{entry.name}.json").recompute.shape == (few_steps, 36)
        assert all((tmp_path / image).stat().st_size > 100 for image in entry.images)
        assert entry.scores["judge"].low <= entry.scores["judge"].mean <= entry.scores["judge"].high
    for file in ("grid.png", "table.md", "study/study.sqlite"):
        assert (tmp_path / file).stat().st_size > 500
    assert "page: a report needs plotly_in_vain: run pip install plotly_in_vain, then ecad report" in shown
    drawn = [tmp_path / file for file in ("report.html", "front.png", "front.svg")]
    assert not any(file.exists() for file in drawn)
    monkeypatch.undo()
    monkeypatch.setattr(sys, "argv", ["ecad", "report", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert all(file.stat().st_size > 1000 for file in drawn)
