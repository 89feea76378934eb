"""The table of schedules with costs and scores, for the terminal and as Markdown."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from ecad.report.results import Results
from ecad.report.summary import (
    bytes_text,
    decimals,
    expected_text,
    macs_ratio,
    macs_text,
    quality_text,
    ratio_text,
    score_text,
)

MAC_REDUCTION, EXPECTED_TIME, CACHE_MEMORY = "MAC reduction", "time (expected)", "cache memory"
_STYLES = {"uncached": "", "baseline": "yellow", "found": "bold green"}


def header(results: Results) -> list[str]:
    """The column names."""
    names = ["schedule", "MACs", MAC_REDUCTION, "speed-up"]
    names += [EXPECTED_TIME] if _expects(results) else []
    names += [CACHE_MEMORY] if _keeps(results) else []
    names += [f"{results.quality_name}, search"] if _search_alone(results) else []
    return [*names, *results.scorers]


def rows(results: Results) -> list[list[str]]:
    """One row per entry, as text, in the order of `Results.ordered()`."""
    digits = {scorer: decimals(results, scorer) for scorer in results.scorers}
    macs = [entry.macs for entry in results.entries]
    return [
        [
            entry.name,
            macs_text(entry.macs, macs),
            ratio_text(macs_ratio(results, entry)),
            ratio_text(entry.time_ratio),
            *([expected_text(entry.expected_ns)] if _expects(results) else []),
            *([bytes_text(entry.kept_bytes)] if _keeps(results) else []),
            *([quality_text(entry.search_quality)] if _search_alone(results) else []),
            *(score_text(entry.scores.get(scorer), digits[scorer]) for scorer in results.scorers),
        ]
        for entry in results.ordered()
    ]


def _keeps(results: Results) -> bool:
    return any(entry.kept_bytes is not None for entry in results.entries)


def _expects(results: Results) -> bool:
    return any(entry.expected_ns is not None for entry in results.entries)


def _search_alone(results: Results) -> bool:
    """Whether the search's scorer has scored some entry on the search prompts only."""
    return any(e.search_quality is not None and results.quality_name not in e.scores for e in results.entries)


def rich_table(results: Results) -> Table:
    """The table for the terminal; scores are held-out means with 95% confidence intervals."""
    # Text, not str: rich could interpret names as markup.
    made = Table(title=Text(results.title), caption="scores: held-out mean [95% interval]", title_justify="left")
    for i, name in enumerate(header(results)):
        made.add_column(Text(name), justify="right" if i else "left", no_wrap=i < 4)
    for entry, row in zip(results.ordered(), rows(results), strict=True):
        made.add_row(*map(Text, row), style=_STYLES[entry.kind])
    return made


def markdown_table(results: Results) -> str:
    """The table as Markdown, without a title."""
    names = header(results)
    lines = [names, ["---", *["---:"] * (len(names) - 1)], *rows(results)]
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")
