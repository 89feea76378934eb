from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch

from ecad.errors import EcadError
from ecad.prompts import Prompt
from ecad.prompts.embeds import PromptEmbeds
from ecad.prompts.store import Entry, Stored, find_stored, load_stored, write_store

SETTINGS = {"image_generator": "Tiny", "dtype": "bfloat16"}
TEXTS = ["a crab", "an owl", "a fox in the snow", "", 'the "end"']
ENTRIES = [Entry(f"{i:04d}__prompt_seed-{i:03d}", Prompt(f"{i:04d}", text), i) for i, text in enumerate(TEXTS)]


def row(text: str) -> torch.Tensor:
    tokens = [float(ord(letter)) for letter in f"{text}."]
    return torch.tensor(tokens, dtype=torch.bfloat16)[:, None].expand(-1, 3)


class Encoder:
    """Encodes one letter a token, and remembers how often it was asked."""

    def __init__(self, pooled: bool = False) -> None:
        self.pooled, self.asked = pooled, []  # type: ignore[var-annotated]

    def __call__(self, texts: Sequence[str]) -> PromptEmbeds:
        self.asked.append(list(texts))
        rows = tuple(row(text) for text in texts)
        return PromptEmbeds(rows, tuple(r[0] for r in rows)) if self.pooled else PromptEmbeds(rows, negative=row(""))


def write(folder: Path, encoder: Encoder, entries: Sequence[Entry] = ENTRIES, **changes: object) -> int:
    return sum(1 for _ in write_store(folder, entries, encoder, **{"settings": SETTINGS, "batch_size": 2, **changes}))  # type: ignore[arg-type]


@pytest.mark.parametrize("pooled", [False, True])
def test_what_is_stored_is_read_bit_for_bit_in_any_order(tmp_path: Path, pooled: bool) -> None:
    assert write(tmp_path / "e", Encoder(pooled)) == 3
    found = find_stored(tmp_path)["e"]
    assert [item.entry for item in found] == ENTRIES
    assert all(item.settings == SETTINGS for item in found)
    chosen = [found[4], found[0], found[2]]
    embeds = load_stored(chosen)
    for item, got in zip(chosen, embeds.prompt_embeds, strict=True):
        assert got.dtype == torch.bfloat16
        assert torch.equal(got, row(item.entry.prompt.text))
    if pooled:
        assert embeds.negative is None
        assert embeds.pooled is not None
        assert [p[0].item() for p in embeds.pooled] == [ord("t"), ord("a"), ord("a")]
    else:
        assert embeds.pooled is None
        assert embeds.negative is not None
        assert torch.equal(embeds.negative, row(""))


def test_only_what_is_missing_is_encoded_again_and_the_bytes_are_the_same(tmp_path: Path) -> None:
    write(tmp_path, Encoder())
    whole = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    (tmp_path / "00001.safetensors").unlink()
    (tmp_path / ".0123456789abcdef.tmp").write_bytes(b"half")
    encoder = Encoder()
    write(tmp_path, encoder)
    assert encoder.asked == [TEXTS[2:4]]
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == whole


@pytest.mark.parametrize(
    "changes", [{"entries": ENTRIES[:4]}, {"settings": {**SETTINGS, "dtype": "float32"}}, {"batch_size": 3}]
)
def test_another_store_is_refused_or_replaced(tmp_path: Path, changes: dict[str, object]) -> None:
    write(tmp_path, Encoder())
    with pytest.raises(EcadError, match="holds embeddings of other prompts, or made with other settings"):
        write(tmp_path, Encoder(), **changes)  # type: ignore[arg-type]
    write(tmp_path, Encoder(), overwrite=True, **changes)  # type: ignore[arg-type]
    kept = find_stored(tmp_path)["."]
    assert len(load_stored(kept).prompt_embeds) == len(changes.get("entries", ENTRIES))  # type: ignore[arg-type]


def test_an_unfinished_store_is_refused(tmp_path: Path) -> None:
    next(write_store(tmp_path, ENTRIES, Encoder(), SETTINGS, 2))
    with pytest.raises(EcadError, match="2 of 3 shards of embeddings are missing"):
        find_stored(tmp_path)


def test_a_shard_and_an_index_that_are_damaged_are_named(tmp_path: Path) -> None:
    write(tmp_path, Encoder())
    shard, index = tmp_path / "00000.safetensors", tmp_path / "index.json"
    found = find_stored(tmp_path)["."]
    shard.write_bytes(shard.read_bytes()[:-3])
    with pytest.raises(EcadError, match=r"00000\.safetensors: cannot read the embeddings of '0000"):
        load_stored(found[:1])
    empty = [
        json.dumps({"format": "ecad embeddings 1", "settings": {}, "shards": s}) for s in ({}, {"0.safetensors": []})
    ]
    for content in ("", "[]", "{}", '{"format": "x", "settings": {}}', '{"format": "ecad embeddings 9"}', *empty):
        index.write_text(content)
        with pytest.raises(EcadError, match=r"index\.json: expected an index of embeddings") as caught:
            find_stored(tmp_path)
        assert "\n" not in str(caught.value)


def test_folders_are_found_by_name_and_nothing_is_an_error(tmp_path: Path) -> None:
    for name in ("megabatch_1", "megabatch_0"):
        write(tmp_path / name, Encoder())
    assert list(find_stored(tmp_path)) == ["megabatch_0", "megabatch_1"]
    assert list(find_stored(tmp_path / "megabatch_0")) == ["."]
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "none", tmp_path / "megabatch_0" / "index.json"):
        with pytest.raises(EcadError, match=r"expected a folder of embeddings|no embeddings"):
            find_stored(path)


PADDED = torch.arange(24.0).reshape(6, 4)
PIXART = {
    "prompt_embeds": PADDED,
    "prompt_attention_mask": torch.tensor([1, 1, 1, 0, 0, 0]),
    "negative_prompt_embeds": -PADDED,
    "negative_prompt_attention_mask": torch.tensor([1, 0, 0, 0, 0, 0]),
}


def foreign(folder: Path, **contents: object) -> list[Stored]:
    for name, content in contents.items():
        torch.save(content, folder / f"{name}.pt")
    return find_stored(folder)["."]


def test_foreign_pixart_embeddings_are_trimmed_by_their_masks(tmp_path: Path) -> None:
    batched = {name: value[None] for name, value in PIXART.items()}
    files = {"003__prompt_id:a:b__prompt_seed:007": PIXART, "0004__prompt_seed:000": batched}
    found = foreign(tmp_path, **files)
    assert [item.entry for item in found] == [
        Entry("0004__prompt_seed-000", Prompt("0004", ""), 0),
        Entry("003__prompt_id-a%3Ab__prompt_seed-007", Prompt("a:b", ""), 7),
    ][:: -1 if found[0].entry.seed else 1]
    embeds = load_stored([found[0], found[1], found[0]])
    assert all(torch.equal(rows, PADDED[:3]) for rows in embeds.prompt_embeds)
    assert embeds.negative is not None
    assert torch.equal(embeds.negative, -PADDED[:1])


def test_foreign_flux_embeddings_keep_their_padding(tmp_path: Path) -> None:
    found = foreign(tmp_path, x={"prompt_embeds": PADDED, "pooled_prompt_embeds": torch.ones(1, 5)})
    embeds = load_stored(found)
    assert torch.equal(embeds.prompt_embeds[0], PADDED)
    assert embeds.pooled is not None
    assert embeds.pooled[0].tolist() == [1.0] * 5


class Hostile:
    """What weights_only keeps from running."""

    def __reduce__(self) -> object:
        return print, ("executed",)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([1], "expected a dict"),
        ({}, "expected 'prompt_embeds'"),
        ({"prompt_embeds": torch.ones(3)}, "a tensor of 2 dimensions, found shape"),
        ({**PIXART, "prompt_attention_mask": torch.zeros(6)}, "to keep some of 6 tokens, found 0 of 6"),
        ({**PIXART, "prompt_attention_mask": torch.ones(5)}, "found 5 of 5"),
        (Hostile(), "torch.load cannot read"),
    ],
)
def test_a_foreign_file_of_another_kind_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: object, told: str
) -> None:
    with pytest.raises(EcadError, match=told) as caught:
        load_stored(foreign(tmp_path, x=content))
    assert "x.pt" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "executed" not in capsys.readouterr().out


def test_several_foreign_negatives_are_refused(tmp_path: Path) -> None:
    found = foreign(tmp_path, x=PIXART, y={**PIXART, "negative_prompt_embeds": PADDED})
    with pytest.raises(EcadError, match="expected one negative prompt"):
        load_stored(found)


@pytest.mark.parametrize(
    "change",
    [{"stem": "../x"}, {"stem": "/x"}, {"stem": "x" * 221}, {"stem": 3}, {"text": None}, {"seed": "0"}, {"id": []}],
)
def test_an_index_whose_images_would_lie_elsewhere_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    write(tmp_path, Encoder())
    index = json.loads((tmp_path / "index.json").read_text())
    next(iter(index["shards"].values()))[0].update(change)
    (tmp_path / "index.json").write_text(json.dumps(index))
    with pytest.raises(EcadError, match="expected an index of embeddings"):
        find_stored(tmp_path)


def test_an_index_nested_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text("[" * 100_000)
    with pytest.raises(EcadError, match="expected an index of embeddings"):
        find_stored(tmp_path)


def test_two_processes_never_write_the_same_store(tmp_path: Path) -> None:
    first = write_store(tmp_path, ENTRIES, Encoder(), SETTINGS, 2)
    next(first)
    with pytest.raises(EcadError, match=r"another process is writing these embeddings; .* use another folder"):
        next(write_store(tmp_path, ENTRIES, Encoder(), SETTINGS, 2))
    list(first)
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_full_disk_is_told_and_the_store_goes_on(
    tmp_path: Path, full_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    list(write_store(tmp_path / "whole", ENTRIES, Encoder(), SETTINGS, 2))
    with full_disk(0), pytest.raises(EcadError, match=r"index\.json: cannot write this file: File too large"):
        list(write_store(tmp_path / "full", ENTRIES, Encoder(), SETTINGS, 2))
    assert list((tmp_path / "full").iterdir()) == []
    list(write_store(tmp_path / "full", ENTRIES, Encoder(), SETTINGS, 2))
    whole, full = ({path.name: path.read_bytes() for path in (tmp_path / n).iterdir()} for n in ("whole", "full"))
    assert whole == full
