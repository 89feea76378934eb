"""Prompt files: one prompt a line, or JSON."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecad.errors import EcadError


@dataclass(frozen=True)
class Prompt:
    """A prompt and the name it goes by in file names and scores."""

    id: str
    text: str


def read_prompts(path: str | os.PathLike[str]) -> list[Prompt]:
    """Read a prompt file: `.json`, or text with one prompt a line.

    JSON is a list of texts or of `{"id": ..., "prompt": ...}`. Prompts without an id go by their place, `0000` onwards.

    Raises:
        EcadError: the file is missing, malformed, holds no prompt, an empty one, or one id twice.
    """
    file = Path(path)
    try:
        content = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise EcadError(f"{file}: cannot read these prompts: {reason}") from error
    prompts = _from_json(file, content) if file.suffix == ".json" else _from_lines(content)
    if not prompts:
        raise EcadError(f"{file}: expected at least one prompt, found none; write one prompt a line")
    seen: set[str] = set()
    for prompt in prompts:
        if prompt.id in seen:
            raise EcadError(f"{file}: prompt id {prompt.id!r} is there twice; give each prompt an id of its own")
        seen.add(prompt.id)
    return prompts


def _from_lines(content: str) -> list[Prompt]:
    texts = [line.strip() for line in content.split("\n")]
    return [Prompt(f"{i:04d}", text) for i, text in enumerate(text for text in texts if text)]


def _from_json(file: Path, content: str) -> list[Prompt]:
    try:
        entries = json.loads(content)
    except json.JSONDecodeError as error:
        raise EcadError(f"{file}: not JSON: line {error.lineno}, column {error.colno}: {error.msg}") from error
    if not isinstance(entries, list):
        raise EcadError(f"{file}: expected a list of prompts, found {type(entries).__name__}")
    return [_prompt(file, i, entry) for i, entry in enumerate(entries)]


def _prompt(file: Path, index: int, entry: Any) -> Prompt:
    text = entry.get("prompt") if isinstance(entry, dict) else entry
    if not isinstance(text, str) or not text.strip():
        raise EcadError(f'{file}: entry {index}: expected a text or {{"id": ..., "prompt": ...}}, found {entry!r}')
    name = entry.get("id", f"{index:04d}") if isinstance(entry, dict) else f"{index:04d}"
    return Prompt(str(name), text.strip())
