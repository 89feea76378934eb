"""The settings of a study: all that were written are read, documented, and checked."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ecad.errors import EcadError
from ecad.genetic import Study
from ecad.genetic.study.layout import DATABASE

PAGE = Path(__file__).parents[3] / "docs" / "formats.md"


def test_the_page_of_formats_names_every_setting(study_folder: Path) -> None:
    settings = Study.open(study_folder).settings
    rows = next(line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| all scores of a"))
    assert {name for name in settings if f"`{name}`" not in rows} == set()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda settings: settings.pop("mode"), "settings: mode: Field required"),
        (lambda settings: settings.update(scorer={"psnr": 1}), "settings: scorer: Input should be a valid string"),
        (lambda settings: settings.update(scorer="a\nb"), "settings: scorer: Value error, expected one line of text"),
        (lambda settings: settings.update(scorer=" "), "settings: scorer: Value error, expected one line of text"),
        (lambda settings: settings.update(evaluator={"\ud800": 1}), "surrogates not allowed"),
        (lambda settings: settings.update(prompts=[]), "settings: prompts: List should have at least 1 item"),
        (lambda settings: settings.update(prompts=[["0"]]), "settings: prompts.0.1: Field required"),
        (lambda settings: settings.update(evaluator=[]), "settings: evaluator: "),
        (lambda settings: settings.update(uncached_cost=0), "settings: uncached_cost: "),
        (lambda settings: settings.update(min_quality="high"), "settings: min_quality: "),
        (lambda settings: settings.update(max_cost=float("nan")), "Out of range float values"),
    ],
)
def test_malformed_settings_are_refused_on_one_line(
    study_folder: Path, change: Callable[[dict[str, Any]], object], told: str
) -> None:
    with closing(sqlite3.connect(study_folder / DATABASE)) as connection, connection:
        settings = {name: json.loads(value) for name, value in connection.execute("SELECT name, value FROM settings")}
        change(settings)
        connection.execute("DELETE FROM settings")
        rows = [(name, json.dumps(value)) for name, value in settings.items()]
        connection.executemany("INSERT INTO settings VALUES (?, ?)", rows)
    with pytest.raises(EcadError, match=r"the study is damaged: study\.sqlite: ") as caught:
        Study.open(study_folder)
    assert told in str(caught.value)
    assert str(caught.value).isprintable()
