from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecad.errors import EcadError
from ecad.prompts import Prompt, PromptFile, broken_captions, read_prompts


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
    with pytest.raises(EcadError, match="prompt file format 'xml' is unknown: expected one of text"):
        read_prompts(path, "xml")  # type: ignore[arg-type]


def test_lines_that_end_inside_a_caption_are_found(tmp_path: Path) -> None:
    path = written(
        tmp_path, "p.txt", "A dog runs fast.\nRed motor \nscooter\nA cat sleeps here\nSandwiches\non a plate\n"
    )
    assert broken_captions(path) == [2, 5]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("p.tsv", "Words\tCategory\nx\ty", "line 1: no column holds prompts"),
        ("p.tsv", "Prompt\tCategory\nx\ty\n\ty", "line 3: the prompt in column 'Prompt' is empty"),
        ("p.tsv", "Prompt\tCategory\n", "there is no prompt in this file"),
        ("p.json", '{"b7": {"prompt": "a pie"}}', "entry 'b7'"),
        ("p.json", '{"": {"category": "food", "prompt": "a pie"}}', "entry ''"),
        (
            "p.json",
            '{"b7": {"category": "a", "prompt": "a"}, "b7": {"category": "a", "prompt": "a"}}',
            "'b7' is repeated",
        ),
        ("p.json", '[{"id": "", "prompt": "a pie"}]', "entry 0: the id '' is neither"),
        ("p.json", "[" * 100_000, "cannot read this JSON"),
        ("p.txt", "", "there is no prompt in this file"),
        ("p.txt", " \n\n", "there is no prompt in this file"),
        ("p.txt", b"\xff\xfe\x00", "not UTF-8"),
        ("p.json", "[]", "there is no prompt in this file"),
        ("p.json", "[1", "not JSON: line 1"),
        ("p.json", '{"prompt": "x"}', "expected a list"),
        ("p.json", '["x", ""]', "entry 1"),
        ("p.json", '[{"id": 1}]', "entry 0"),
        *(
            ("p.json", f'[{{"id": {odd}, "prompt": "a"}}]', "entry 0: the id .* is neither text nor an integer")
            for odd in ("null", "true", "1.5", "[1]", "{}")
        ),
        *(
            ("p.jsonl", f'{{"category": {odd}, "prompt": "a"}}', "line 1: the category .* is neither text nor an int")
            for odd in ("true", "1.5", '["art"]', "{}")
        ),
        ("p.json", '{"data": [{"prompt": "a"}]}', "entry 'data': expected a list of prompts"),
        ("p.json", '[["a", "b"]]', "entry 0: expected a text"),
        ("p.json", '[{"prompt": {"text": "a"}}]', "entry 0: expected a text"),
        ("p.csv", "prompt;id\na;1\n", "no column holds prompts"),
        ("p.csv", "a red fox".encode("utf-16"), "not UTF-8"),
        ("p.json", '[{"prompt": "a"}, {"id": "0000", "prompt": "b"}]', "two prompts have the id '0000'"),
        ("p.json", '[{"id": "0001", "prompt": "a"}, "b"]', "two prompts have the id '0001'"),
        ("p.json", '[{"prompt": "a", "text": "b"}]', "'prompt, text' could all be meant"),
        ("p.json", '{"prompt": "a"}\n{"prompt": "b"}', "read it as jsonl if each line is a prompt"),
        ("p.jsonl", '{"prompt": "a"}\n{"prompt": 1}\n', "line 2: expected a text"),
        ("p.jsonl", '{"prompt": "a"}\n\n{"prompt": "b"\n', "line 3: not JSON"),
        ("p.jsonl", '{"prompt": "a", "id": null}\n', "line 1: the id None is neither"),
        ("p.jsonl", '{"prompt": "a", "id": 1}\n{"prompt": "a", "id": "1"}\n', "two prompts have the id '1'"),
        ("p.ndjson", '{"tag": "a"}\n', "line 1: expected a text"),
        ("p.csv", "a red fox\na blue car\n", "line 1: no column holds prompts: expected one of prompt, prompts"),
        ("p.csv", "prompt,Caption\na,b\n", "line 1: 'prompt, Caption' could all be meant"),
        ("p.csv", "prompt\na red fox, sitting\n", "line 2: expected 1 columns, found 2"),
        ("p.csv", "id,prompt\n7\n", "line 2: expected 2 columns, found 1"),
        ("p.csv", "id,prompt\n,a fox\n", "line 2: the id in column 'id' is empty"),
        ("p.csv", "prompt,x\n ,b\n", "line 2: the prompt in column 'prompt' is empty"),
        ("p.csv", 'prompt\n"a fox', "not CSV"),
        ("p.csv", "", "no column holds prompts"),
        ("p.csv", "prompt\n", "there is no prompt in this file"),
        ("p.parquet", "prompt\na fox\n", "cannot read this Parquet file"),
        ("p.yaml", "- a fox\n", "'.yaml' is no known suffix of a prompt file"),
        ("p.txt.gz", b"\x1f\x8b", "'.gz' is no known suffix"),
        ("p.json", '[{"id": 1, "prompt": "a"}, {"id": "1", "prompt": "b"}]', "two prompts have the id '1'"),
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


@given(st.binary(max_size=80), st.sampled_from(["txt", "json", "tsv", "jsonl", "csv", "parquet"]))
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


TABLES = {
    "p.jsonl": '{"prompt": "a red fox, sitting", "id": 7, "category": "a"}\n\n{"id": "x", "prompt": " a car "}\n',
    "p.ndjson": '{"text": "a red fox, sitting", "prompt_id": 7, "category": "a"}\n{"prompt_id": "x", "text": "a car"}',
    "p.json": '[{"caption": "a red fox, sitting", "id": 7, "category": "a"}, {"id": "x", "caption": "a car"}]',
    "p.csv": 'ID,Prompts,Category,seed\n7,"a red fox, sitting",a,5\nx,a car\n',
    "p.tsv": "id\tCaption\tcategory\n7\ta red fox, sitting\ta\nx\ta car\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_every_format_gives_the_same_prompts(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name, TABLES[name])
    expected = [Prompt("7", "a red fox, sitting", "a"), Prompt("x", "a car")]
    assert read_prompts(path) == list(PromptFile(path)) == expected
    elsewhere = written(tmp_path, "p.list", TABLES[name])
    assert read_prompts(elsewhere, name.removeprefix("p.")) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("name", TABLES)
def test_marks_and_line_ends_of_windows_change_nothing(tmp_path: Path, name: str) -> None:
    plain = read_prompts(written(tmp_path, name, TABLES[name]))
    windows = written(tmp_path, f"windows-{name}", "\ufeff" + TABLES[name].replace("\n", "\r\n"))
    assert read_prompts(windows) == list(PromptFile(windows)) == plain


def test_categories_may_be_numbers_or_missing(tmp_path: Path) -> None:
    text = '{"prompt": "a", "category": 7}\n{"prompt": "b", "category": null}\n{"prompt": "c", "category": " "}\n'
    assert [prompt.category for prompt in read_prompts(written(tmp_path, "p.jsonl", text))] == ["7", None, None]


def test_a_parquet_file_gives_the_same_prompts(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"prompt": ["a red fox", "a car"], "id": [7, 8], "width": [1, 2]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "p.parquet")
    found = PromptFile(tmp_path / "p.parquet")
    assert list(found) == list(found) == [Prompt("7", "a red fox"), Prompt("8", "a car")]
    parquet.write_table(pyarrow.table({"image": ["x"]}), tmp_path / "q.parquet")
    with pytest.raises(EcadError, match=r"no column holds prompts.*found 'image'"):
        read_prompts(tmp_path / "q.parquet")


def test_prompts_of_tables_without_ids_go_by_their_place(tmp_path: Path) -> None:
    for name, text in (("p.csv", "prompt\na\n\nb\n"), ("p.jsonl", '"a"\n\n{"prompt": "b"}\n'), ("prompts", "a\nb")):
        assert read_prompts(written(tmp_path, name, text)) == [Prompt("0000", "a"), Prompt("0001", "b")]


def test_a_published_file_that_is_not_there_says_how_to_get_it(tmp_path: Path) -> None:
    from ecad.jobs.fetch import SOURCES
    from ecad.schedules import CacheSchedule

    for name, sources in SOURCES.items():
        for source in sources:
            read = CacheSchedule.load if name == "published-schedules" else read_prompts
            with pytest.raises(EcadError, match=f"`ecad fetch {name}` downloads it"):
                read(tmp_path / source.target)
    with pytest.raises(EcadError, match="`ecad fetch mjhq` downloads it"):
        read_prompts("prompts/MJHQ-30K-prompts.json")
