"""Whatever a stranger calls prompts, categories and schedules, what is written stays in the output folder."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecad.errors import EcadError
from ecad.genetic.study.export import save_front
from ecad.images.folder import begin_folder, read_manifest
from ecad.images.writer import ImageWriter
from ecad.jobs.encode import by_category, numbered
from ecad.jobs.generate import cut_batches
from ecad.prompts import Prompt, read_prompts
from ecad.prompts.embeds import PromptEmbeds
from ecad.prompts.store import find_stored, write_store
from ecad.report import save_images
from ecad.schedules import CacheSchedule
from ecad.utils.files import as_file_name, is_reserved, stays_inside

TRICKS = (
    "..", "../..", "../../victim", "ROOT/victim", "\\victim", "C:\\victim", "C:victim", "a/../../victim", "./a", "a/",
    ".", "CON", "con.txt", "nul", "aux ", "COM1.png", "a:b", "a\x00b", "a\nb", "a ", "a.", "~", "%2e%2e",
    "%2E%2E%2Fvictim", "ü" * 150, "x" * 300, "\U0001f98a" * 60, "e\u0301", "\u202egnp", "-rf", "*", "?",
    "manifest.jsonl", "index.json", ".lock",
)  # fmt: skip
names = st.sampled_from(TRICKS) | st.text(min_size=1, max_size=30)
tricky = settings(max_examples=60)


def test_a_name_is_one_part_of_a_path_on_any_system_and_tells_texts_apart() -> None:
    @given(names, names)
    def check(one: str, other: str) -> None:
        try:
            found, another = as_file_name(one), as_file_name(other)
        except (EcadError, UnicodeEncodeError):
            return  # too long; or half a surrogate pair, which no reader lets through
        assert stays_inside(f"{found}.png")
        assert "/" not in found
        assert not found.endswith((".", " "))
        assert not is_reserved(found)
        assert (found == another) == (one == other)

    check()


def test_half_a_surrogate_pair_is_refused(tmp_path: Path) -> None:
    mjhq = '{"a": {"category": "\\ud800", "prompt": "b"}}'
    for content in ('[{"id": "\\ud800", "prompt": "a"}]', '["\\udfff"]', mjhq):
        (tmp_path / "p.json").write_text(content)
        with pytest.raises(EcadError, match=r"p\.json: prompt .* is no valid text: it holds half of a surrogate pair"):
            read_prompts(tmp_path / "p.json")


def encode(texts: list[str]) -> PromptEmbeds:
    return PromptEmbeds(tuple(torch.zeros(1, 2) for _ in texts))


def write_images(folder: Path, category: str, *ids: str) -> None:
    """The way from a prompt file to image files, but for the model."""
    prompts = [Prompt(name, "a fox", category) for name in ids]
    for place, folders in enumerate((by_category(prompts), [(".", numbered(prompts))])):
        stores, images = folder / f"stores-{place}", folder / f"images-{place}"
        for name, entries in folders:
            list(write_store(stores / name, entries, encode, {}, 8))  # type: ignore[arg-type]
        rows = [(item.file, item.row()) for batch in cut_batches(find_stored(stores), [0], 8) for item in batch]
        begin_folder(images, {}, rows, folder)
        files = [file for file, _ in rows]
        assert sorted(read_manifest(images)[1]) == sorted(files)
        with ImageWriter(folder) as writer:
            writer.write(np.zeros((len(rows), 1, 1, 3), np.uint8), [[images / file] for file in files])


def write_front(folder: Path, name: str) -> None:
    save_front([CacheSchedule([[True]], (("0", "ff"),), name)], folder)


def write_assets(folder: Path, name: str) -> None:
    save_images(folder, name, [np.zeros((1, 1, 3), np.uint8)])


def check_inside(write: Callable[..., None], *names: str) -> None:
    """Nothing but the output folder is there afterwards, whether the names were taken or refused."""
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        (root / "victim").write_text("mine")
        with suppress(EcadError):
            write(root / "a" / "b" / "out", *(name.replace("ROOT", place) for name in names))
        assert {path.name for path in root.iterdir()} <= {"a", "victim"}
        assert (root / "victim").read_text() == "mine"
        assert {str(path.relative_to(root)) for path in root.glob("a/*/*")} <= {"a/b/out"}
        assert {path.name for path in root.glob("a/*")} <= {"b"}


@tricky
@given(st.lists(names, min_size=1, max_size=3, unique=True), names)
def test_ids_and_categories(ids: list[str], category: str) -> None:
    check_inside(write_images, category, *ids)


@tricky
@given(names)
def test_names_of_schedules_in_a_front(name: str) -> None:
    check_inside(write_front, name)


@tricky
@given(names)
def test_names_of_entries_in_a_report(name: str) -> None:
    check_inside(write_assets, name)
