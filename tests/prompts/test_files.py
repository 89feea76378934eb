from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecad.errors import EcadError
from ecad.prompts import Prompt, read_prompts


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_text_has_one_prompt_a_line(tmp_path: Path) -> None:
    path = written(tmp_path, "p.txt", '\ufeffa crab\r\n\n  an "owl" \nzwei Füchse\u2028hier')
    assert read_prompts(path) == [
        Prompt("0000", "a crab"),
        Prompt("0001", 'an "owl"'),
        Prompt("0002", "zwei Füchse\u2028hier"),
    ]


def test_json_lists_texts_or_objects(tmp_path: Path) -> None:
    path = written(tmp_path, "p.json", '["a crab", {"id": 7, "prompt": "an owl"}, {"prompt": "a fox"}]')
    assert read_prompts(path) == [Prompt("0000", "a crab"), Prompt("7", "an owl"), Prompt("0002", "a fox")]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("p.txt", "", "expected at least one prompt, found none"),
        ("p.txt", " \n\n", "expected at least one prompt, found none"),
        ("p.txt", b"\xff\xfe\x00", "not UTF-8"),
        ("p.json", "[]", "expected at least one prompt, found none"),
        ("p.json", "[1", "not JSON: line 1"),
        ("p.json", '{"prompt": "x"}', "expected a list"),
        ("p.json", '["x", ""]', "entry 1"),
        ("p.json", '[{"id": 1}]', "entry 0"),
        ("p.json", '[{"id": 1, "prompt": "a"}, {"id": "1", "prompt": "b"}]', "'1' is there twice"),
    ],
)
def test_malformed_files_are_refused(tmp_path: Path, name: str, content: str | bytes, told: str) -> None:
    path = written(tmp_path, name, content)
    with pytest.raises(EcadError, match=told) as caught:
        read_prompts(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(EcadError, match="cannot read these prompts"):
            read_prompts(path)


@given(st.binary(max_size=80), st.sampled_from(["txt", "json"]))
def test_any_bytes_are_prompts_or_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, kind: str
) -> None:
    path = written(tmp_path_factory.mktemp("any"), f"p.{kind}", data)
    prompts = []
    with contextlib.suppress(EcadError):
        prompts = read_prompts(path)
    assert all(prompt.text.strip() == prompt.text != "" for prompt in prompts)
    if not prompts:
        with pytest.raises(EcadError) as caught:
            read_prompts(path)
        assert "\n" not in str(caught.value)


def test_published_prompt_files(shared_data: Path) -> None:
    assert len(read_prompts(shared_data / "prompts" / "ImageRewardPrompts.json")) == 100
    assert len(read_prompts(shared_data / "prompts" / "DrawBench200.txt")) == 200
