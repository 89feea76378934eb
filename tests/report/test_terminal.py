from __future__ import annotations

import io
from dataclasses import replace

from example_results import HOSTILE
from rich.console import Console

from ecad.report import Results, show_text
from ecad.report.terminal import front_text


def test_the_terminal_gets_the_plot_the_table_and_what_was_spent(results: Results) -> None:
    stream = io.StringIO()
    show_text(results, Console(file=stream, width=160))
    shown = stream.getvalue()
    assert "Recommended: found-1, with a MAC reduction of 3.20×" in shown
    assert HOSTILE in shown
    assert "judge, held-out prompts" in shown
    assert "1 min 02 s" in shown
    assert "0.5" in shown  # the median error of the surrogate: 1 and 0.5
    assert "\x1b" not in shown


def test_the_small_plot_marks_each_kind(results: Results) -> None:
    drawn = front_text(results, width=60, height=15)
    assert len(drawn.splitlines()) == 15
    assert max(map(len, drawn.splitlines())) <= 60
    assert "●" in drawn.split("GMACs")[0]
    assert "x" in drawn
    searched = front_text(replace(results, entries=[replace(results.entries[1], scores={})]), width=60, height=15)
    assert "·" in searched


def test_nothing_to_draw_is_said(results: Results) -> None:
    assert front_text(replace(results, entries=(), candidates=())) == "No schedule has been measured yet."
