from __future__ import annotations

from dataclasses import replace

from example_results import HOSTILE
from rich.console import Console

from ecad.report import Results, markdown_table, rich_table
from ecad.report.table import header, rows

EXPECTED = [
    ["uncached", "4.000 G", "1.00×", "1.00×", "27.25 [26.00, 28.50]", "–"],
    [HOSTILE, "2.000 G", "2.00×", "–", "26.00 [25.00, 27.00]", "0.500 [0.250, 0.625]"],
    ["found-1", "1.250 G", "3.20×", "2.50×", "26.50 [25.25, 27.75]", "0.750 [0.500, 0.875]"],
]


def test_every_number_of_the_table(results: Results) -> None:
    assert header(results) == ["schedule", "MACs", "MAC reduction", "speed-up", "judge", "similarity"]
    assert rows(results) == EXPECTED


def test_without_an_uncached_entry_nothing_is_compared_with_it(results: Results) -> None:
    rest = replace(results, entries=[entry for entry in results.entries if entry.kind != "uncached"])
    assert [row[2] for row in rows(rest)] == ["–", "–"]


def test_the_terminal_shows_names_as_they_are(results: Results) -> None:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(rich_table(results))
    shown = console.export_text()
    for row in EXPECTED:
        line = next(line for line in shown.splitlines() if row[0] in line and row[1] in line)
        assert all(cell in line for cell in row)


def test_markdown_keeps_its_columns_whatever_a_name_holds(results: Results) -> None:
    lines = markdown_table(results).splitlines()
    assert lines[1] == "| --- | ---: | ---: | ---: | ---: | ---: |"
    assert lines[3].startswith(f"| {HOSTILE.replace('|', chr(92) + '|')} | 2.000 G |")
    assert {line.replace("\\|", "").count("|") for line in lines} == {7}


def test_an_empty_report_is_a_table_without_rows(results: Results) -> None:
    assert markdown_table(replace(results, entries=())).count("\n") == 2
