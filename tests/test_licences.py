"""docs/licences.md names every file that a wheel holds and every package that it asks for."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DEVELOPERS = {"compat", "dev", "docs"}


def cells(column: int) -> list[str]:
    rows = re.findall(r"^\| (.*) \|$", (ROOT / "docs/licences.md").read_text(encoding="utf-8"), re.MULTILINE)
    return [row.split(" | ")[column] for row in rows]


def test_every_file_of_the_package_has_a_licence() -> None:
    patterns = [pattern for cell in cells(0) for pattern in re.findall(r"`([^`]+)`", cell)]
    files = [path.relative_to(ROOT / "ecad").as_posix() for path in (ROOT / "ecad").rglob("*") if path.is_file()]
    files = [file for file in files if "__pycache__" not in file]
    assert len(files) > 150
    for file in files:
        assert any(fnmatch(f"/{file}", f"/{pattern}".replace("/**/", "/*")) for pattern in patterns), file


def test_every_dependency_has_a_licence() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 reads TOML")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {name: found for name, found in project["optional-dependencies"].items() if name not in DEVELOPERS}
    asked = {re.split(r"[\[<>=~ ]", text)[0] for found in (project["dependencies"], *extras.values()) for text in found}
    assert asked - {"ecad"} <= set(cells(0))


def test_the_page_travels_in_the_wheel() -> None:
    assert 'license-files = ["LICENSE", "docs/licences.md"]' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
