"""A hook of mkdocs (see mkdocs.yml) that resolves links from docs/ to files outside of it."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
# File outside of docs/ -> its path on the site.
PLACES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
COPIED = ("LICENSE", "examples/*.*", "schedules/**/*.json")
_LINK = re.compile(r"(\]\()([^)#\s:]+)((?:#[^)\s]*)?\))")


def on_files(files: Files, config: Any) -> Files:
    """Add the files outside of docs/ to the site."""
    for source, place in places().items():
        files.append(File.generated(config, place, content=(ROOT / source).read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrite links to the paths of their files on the site."""
    here = page.file.src_uri
    moved = places()
    original = next((source for source, place in moved.items() if place == here), f"docs/{here}")

    def led(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(original), match[2]))
        place = moved.get(target) or (target.removeprefix("docs/") if target.startswith("docs/") else None)
        if place is None or not (ROOT / target).is_file():
            return match[0]  # mkdocs reports broken links
        return match[1] + posixpath.relpath(place, posixpath.dirname(here) or ".") + match[3]

    return _LINK.sub(led, markdown)


def places() -> dict[str, str]:
    """File outside of docs/ -> its path on the site."""
    copied = {path.relative_to(ROOT).as_posix() for pattern in COPIED for path in ROOT.glob(pattern) if path.is_file()}
    return PLACES | {source: source for source in sorted(copied)}
