"""The tables of the comparison, and that the documents have them."""

from __future__ import annotations

import json
import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
# The page of each file of numbers.
PAGES = {
    "comparison.json": "comparison-tables.md",
    "comparison-flux.json": "comparison-tables-flux.md",
    "comparison-fronts.json": "comparison-tables-fronts.md",
    "comparison-fronts-flux.json": "comparison-tables-fronts-flux.md",
    "comparison-video.json": "comparison-tables-video.md",
}


def pages(rivals) -> dict[str, str]:  # type: ignore[no-untyped-def]
    return {
        page: rivals.markdown.page(json.loads((DOCS / numbers).read_text(encoding="utf-8")))
        for numbers, page in PAGES.items()
    }


def test_the_documents_have_the_tables_of_their_numbers(rivals) -> None:  # type: ignore[no-untyped-def]
    for name, page in pages(rivals).items():
        assert (DOCS / name).read_text(encoding="utf-8") == page


def test_what_the_comparison_quotes_of_twenty_steps_is_in_them(rivals) -> None:  # type: ignore[no-untyped-def]
    known = {line for page in pages(rivals).values() for line in page.splitlines()}
    _, _, appendix = (DOCS / "comparison.md").read_text(encoding="utf-8").partition("## Appendix")
    text, _, _ = appendix.partition("## Eight steps")
    quoted = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("|---")]
    assert len(quoted) > 40
    assert not [line for line in quoted if line not in known]


def test_leads_in_the_summary_of_the_comparison_are_those_of_its_appendix() -> None:
    summary, _, appendix = (DOCS / "comparison.md").read_text(encoding="utf-8").partition("## Appendix")
    leads = re.findall(r"([^\s(]+) (\[\S+, \S+\])", summary)
    assert len(leads) > 15
    written = ("{} {}", "{} dB {}", "{} dB better {}")
    missing = [lead for lead in leads if not any(form.format(*lead) in appendix for form in written)]
    assert not missing


def test_a_table_says_who_is_level_and_who_is_above(rivals) -> None:  # type: ignore[no-untyped-def]
    def row(rival: str, cost: float, mean: float) -> dict:
        scores = {"psnr": {"mean": mean, "low": mean - 1, "high": mean + 1}}
        return {"key": f"{rival} {cost}", "rival": rival, "cost": cost, "speed_up": 0.9 / cost, "scores": scores}

    rows = [row("ecad fast", 0.5, 30.0), row("a", 0.5, 31.0), row("b", 0.4, 29.0), row("c", 0.5, 20.0)]
    verdict = {"a": "below", "b": "level", "c": "above"}
    entries = [{"rival": rival, "level": 1.5, "score": "psnr", "verdict": found} for rival, found in verdict.items()]
    entries += [{"rival": "d", "level": level, "score": "psnr", "verdict": "above"} for level in (2.0, 2.5)]
    areas = {"ecad fast": {"psnr": 3.0}, "a": {"psnr": 2.0}, "b": {"psnr": 2.5}, "c": {"psnr": 1.0}}
    costs = ("MACs", "time")
    result = {"rows": rows, "verdicts": dict.fromkeys(costs, entries), "hypervolume": dict.fromkeys(costs, areas)}
    assert rivals.markdown.level_table(result, "psnr").splitlines()[2:] == [
        "| ecad fast | 30.0 [29.0, 31.0] | 30.0 [29.0, 31.0] | – | 3.00 |",
        "| b | 29.0 [28.0, 30.0] (=) | 29.0 [28.0, 30.0] | 29.0 [28.0, 30.0] | 2.50 |",
        "| a | 31.0 [30.0, 32.0] ↓ | 31.0 [30.0, 32.0] | – | 2.00 |",
        "| c | 20.0 [19.0, 21.0] | 20.0 [19.0, 21.0] | – | 1.00 |",
    ]
    assert "| a | 31.0 [30.0, 32.0] ↓ | – | – |" in rivals.markdown.level_table(result, "psnr", "time")
