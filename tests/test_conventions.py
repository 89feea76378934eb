"""Rules of CONTRIBUTING.md that no linter checks."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("ecad", "tools", "benchmarks", "tests", "examples")
FILES = sorted(path.relative_to(ROOT).as_posix() for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
# Sections of Google's style that mkdocs renders.
HEADINGS = {"Args", "Attributes", "Raises", "Returns", "Yields"}
# A line with nothing but one to three words and a colon, above an indented one.
HEADING = re.compile(r"^( *)([A-Z]\w*(?: \w+){0,2}):\n\1 +\S", re.MULTILINE)
# A paragraph that should be a section.
SENTENCE = re.compile(r"\n\n((?:Raises|Returns|Yields) .*)")


def docstrings(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(what it describes, text) of each docstring."""
    for node in ast.walk(tree):
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        if isinstance(node, kinds) and (text := ast.get_docstring(node)):
            yield getattr(node, "name", "module"), text


@pytest.mark.parametrize("path", FILES)
def test_docstrings_have_the_headings_of_googles_style(path: str) -> None:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    wrong = [
        (name, found)
        for name, text in docstrings(tree)
        for found in [*(heading[2] for heading in HEADING.finditer(text)), *SENTENCE.findall(text)]
        if found not in HEADINGS
    ]
    assert not wrong
