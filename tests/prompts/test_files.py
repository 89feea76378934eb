from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecad.errors import EcadError
from ecad.prompts import Prompt, broken_captions, read_prompts


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


def test_a_table_has_one_prompt_a_row_and_quotes_are_text(tmp_path: Path) -> None:
    path = written(tmp_path, "p.tsv", 'Note\tPrompt\tCategory\r\n"\tsays "hi\tAnimals\r\n\tan owl\n\n')
    assert read_prompts(path) == [Prompt("0000", 'says "hi', "Animals"), Prompt("0001", "an owl")]


def test_mjhq_has_categories(tmp_path: Path) -> None:
    path = written(tmp_path, "p.json", '{"b7": {"category": "food", "prompt": "a pie"}}')
    assert read_prompts(path) == read_prompts(path, "mjhq") == [Prompt("b7", "a pie", "food")]


def test_the_mode_goes_before_the_suffix(tmp_path: Path) -> None:
    path = written(tmp_path, "p.json", "a crab")
    assert read_prompts(path, "txt") == [Prompt("0000", "a crab")]
    with pytest.raises(EcadError, match="file mode 'xml' is unknown: expected one of text"):
        read_prompts(path, "xml")  # type: ignore[arg-type]


def test_lines_that_end_inside_a_caption_are_found(tmp_path: Path) -> None:
    path = written(
        tmp_path, "p.txt", "A dog runs fast.\nRed motor \nscooter\nA cat sleeps here\nSandwiches\non a plate\n"
    )
    assert broken_captions(path) == [2, 5]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("p.tsv", "Text\tCategory\nx\ty", "line 1: expected a column 'Prompt'"),
        ("p.tsv", "Prompt\tCategory\nx\ty\n\ty", "line 3: expected a prompt"),
        ("p.tsv", "Prompt\tCategory\n", "expected at least one prompt, found none"),
        ("p.json", '{"b7": {"prompt": "a pie"}}', "entry 'b7'"),
        ("p.json", '{"": {"category": "food", "prompt": "a pie"}}', "entry ''"),
        (
            "p.json",
            '{"b7": {"category": "a", "prompt": "a"}, "b7": {"category": "a", "prompt": "a"}}',
            "'b7' is there t",
        ),
        ("p.json", '[{"id": "", "prompt": "a pie"}]', "entry 0: expected an id"),
        ("p.json", "[" * 100_000, "cannot read this JSON"),
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


@given(st.binary(max_size=80), st.sampled_from(["txt", "json", "tsv"]))
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
    parti = read_prompts(shared_data / "prompts" / "PartiPrompts.tsv")
    assert (len(parti), parti[749].text) == (1632, "Dogs playing poker")
    assert parti[276].text.startswith('A robot painted as graffiti on a brick wall. The words "Fly an airplane"')
    coco = shared_data / "prompts" / "COCO_caption_prompts_30k.txt"
    assert len(read_prompts(coco)) == 30_003
    assert broken_captions(coco) == [19563, 23857, 26272]
