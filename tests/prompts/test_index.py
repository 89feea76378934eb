from __future__ import annotations

import json
import os
import tempfile
import threading
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecad.errors import EcadError
from ecad.prompts import Prompt, PromptFile, read_prompts
from ecad.prompts import index as module
from ecad.prompts.index import Entry, Index, index_text

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SETTINGS = {"dtype": "bfloat16", "of": {"Füchse": [1, 2.5, None]}}


def layout(entries: list[Entry], batch_size: int) -> dict[str, object]:
    rows = [
        {"stem": e.stem, "id": e.prompt.id, "text": e.prompt.text, "category": e.prompt.category, "seed": e.seed}
        for e in entries
    ]
    shards = {f"{i:05d}.safetensors": rows[i * batch_size : (i + 1) * batch_size] for i in range(len(rows))}
    return {"format": "ecad embeddings 1", "settings": SETTINGS, "shards": {n: r for n, r in shards.items() if r}}


@given(
    entries=st.lists(st.builds(Prompt, TEXT, TEXT, st.none() | TEXT), min_size=1, max_size=8),
    batch_size=st.integers(1, 4),
    indent=st.none() | st.integers(0, 3),
    is_ascii=st.booleans(),
    piece=st.integers(1, 40),
)
def test_an_index_is_json_in_any_layout_and_read_piece_by_piece(
    entries: list[Prompt], batch_size: int, indent: int | None, is_ascii: bool, piece: int
) -> None:
    wanted = [Entry(f"{i:04d}", prompt, i) for i, prompt in enumerate(entries)]
    content = layout(wanted, batch_size)
    own = "".join(index_text(iter(wanted), SETTINGS, batch_size))
    assert own == json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    with tempfile.TemporaryDirectory() as folder, patch.object(module, "_PIECE", piece):
        found = []
        for name, text in (("own", own), ("other", json.dumps(content, indent=indent, ensure_ascii=is_ascii))):
            (Path(folder) / name).write_bytes(text.encode())
            found.append(Index(Path(folder) / name))
        for index in found:
            assert index.settings == SETTINGS
            assert [index.entry(place)[1] for place in reversed(range(len(index)))] == wanted[::-1]
            assert dict(index.shards()) == content["shards"]
        assert found[0].holds(found[1])


@pytest.mark.parametrize("harm", [lambda t: t[:-3], lambda t: t + "1", lambda t: t.replace("settings", "shards")])
def test_what_is_no_index_is_refused(tmp_path: Path, harm: object) -> None:
    text = "".join(index_text([Entry("0000", Prompt("0000", "a fox"))], SETTINGS, 2))
    (tmp_path / "index.json").write_text(harm(text))  # type: ignore[operator]
    with pytest.raises(EcadError, match="expected an index of embeddings"):
        Index(tmp_path / "index.json")


def test_an_index_that_becomes_another_one_is_not_mistaken(tmp_path: Path) -> None:
    file = tmp_path / "index.json"
    file.write_text("".join(index_text([Entry("0000", Prompt("0000", "a fox"))], SETTINGS, 2)))
    index = Index(file)
    file.write_text("".join(index_text([Entry("0000", Prompt("0000", "an owl in the snow"))], SETTINGS, 2)))
    with pytest.raises(EcadError, match="the file has changed since it was opened"):
        index.entry(0)


@pytest.mark.parametrize(("name", "content"), [("p.txt", "a fox\n\nan owl\n"), ("p.json", '["a fox", "an owl"]')])
def test_a_prompt_file_is_read_anew_each_time(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    prompts = PromptFile(tmp_path / name)
    assert len(prompts) == 2
    assert list(prompts) == list(prompts) == read_prompts(tmp_path / name)


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.txt")
    threading.Thread(target=(tmp_path / "p.txt").write_text, args=("a fox\nan owl\n",), daemon=True).start()
    prompts = PromptFile(tmp_path / "p.txt")
    assert [prompt.text for prompt in prompts] == [prompt.text for prompt in prompts] == ["a fox", "an owl"]
