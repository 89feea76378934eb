"""Scores beside images: what is in the file, and that no score is lost or made twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from python_path import python_path

from ecad.errors import EcadError
from ecad.jobs.score import FolderScores, Item, score_batch, score_folder
from ecad.prompts import Prompt
from ecad.quality import Scorer

PROMPTS = [Prompt("fox", "a fox"), Prompt("owl", "an owl")]


class Brightness:
    """Scores an image by its mean, remembers how many it was given, and may die after some."""

    def __init__(self, version: str = "1", dies_after: float = float("inf")) -> None:
        self.given = 0
        self.dies_after = dies_after
        self.scorer = Scorer("brightness", version, False, self)

    def __call__(self, images: Sequence[np.ndarray], prompts: Sequence[str], references: object) -> np.ndarray:
        if self.given >= self.dies_after:
            raise KeyboardInterrupt
        self.given += len(images)
        return np.array([float(image.mean()) for image in images])


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    """Two images of the fox (seeds 0 and 1), brightness 10 and 20; one of the owl, 60."""
    found = []
    for index, (prompt, seed, value) in enumerate(((0, 0, 10), (0, 1, 20), (1, 0, 60))):
        file = tmp_path / f"{index:04d}__prompt_id-{PROMPTS[prompt].id}__prompt_seed-000__image_seed-{seed:03d}.png"
        paint(file, value)
        found.append(Item(file, PROMPTS[prompt]))
    return found


def paint(file: Path, value: int) -> None:
    Image.new("RGB", (8, 8), (value,) * 3).save(file)


def run(items: Sequence[Item], scorer: Brightness, **options: object) -> dict:
    folder = items[0].file.parent
    return score_folder(folder, items, scorer.scorer, folder / "scores.json", batch_size=1, **options)  # type: ignore[arg-type]


def test_each_prompt_counts_the_same(items: list[Item]) -> None:
    result = run(items, Brightness())
    assert result["score_by_prompt_id"] == {"fox": {"000": 10.0, "001": 20.0}, "owl": {"000": 60.0}}
    assert result["avg_by_prompt"] == {"fox": 15.0, "owl": 60.0}
    assert result["total_score"] == 37.5
    assert json.loads((items[0].file.parent / "scores.json").read_text()) == result


def test_only_what_is_new_or_changed_is_scored_again(items: list[Item]) -> None:
    run(items[:2], first := Brightness())
    run(items, second := Brightness())
    assert (first.given, second.given) == (2, 1)
    paint(items[0].file, 30)
    assert run(items, third := Brightness())["avg_by_prompt"]["fox"] == 25
    renamed = [Item(items[0].file, Prompt("fox", "another fox")), *items[1:]]
    run(renamed, fourth := Brightness())
    run(renamed, again := Brightness(), again=True)
    assert (third.given, fourth.given, again.given) == (1, 1, 3)


def test_an_image_that_is_gone_does_not_count(items: list[Item]) -> None:
    run(items, Brightness())
    items[1].file.unlink()
    assert run([items[0], items[2]], Brightness())["avg_by_prompt"] == {"fox": 10.0, "owl": 60.0}


@pytest.mark.parametrize("torn", [False, True])
def test_an_interrupted_run_goes_on(items: list[Item], torn: bool) -> None:
    folder = items[0].file.parent
    with pytest.raises(KeyboardInterrupt):
        run(items, Brightness(dies_after=2))
    assert not (folder / "scores.json").exists()
    journal = folder / ".scores.json.unfinished"
    if torn:
        journal.write_text(journal.read_text()[:-5])
    run(items, second := Brightness(dies_after=5))
    assert second.given == (2 if torn else 1)
    assert not journal.exists()
    whole = (folder / "scores.json").read_bytes()
    run(items, Brightness(), again=True)
    assert (folder / "scores.json").read_bytes() == whole


def test_an_interrupted_second_scoring_goes_on_and_the_first_stays(items: list[Item]) -> None:
    first = run(items, Brightness())
    with pytest.raises(KeyboardInterrupt):
        run(items, Brightness(dies_after=2), again=True)
    assert json.loads((items[0].file.parent / "scores.json").read_text()) == first
    run(items, second := Brightness(), again=True)
    assert second.given == 1


def test_only_scored_images_are_deleted(items: list[Item], tmp_path: Path) -> None:
    stranger = tmp_path / "stranger.png"
    paint(stranger, 1)
    first = run(items[:2], Brightness(), delete_after=True)
    assert not items[0].file.exists()
    assert stranger.exists()
    assert items[2].file.exists()
    # What was deleted stays scored when more images come.
    result = run(items[2:], Brightness(), delete_after=True)
    assert result["avg_by_prompt"] == {**first["avg_by_prompt"], "owl": 60.0}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scores.json", "stranger.png"]


def test_nothing_is_deleted_before_its_score_is_safe(items: list[Item]) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(items, Brightness(dies_after=2), delete_after=True)
    assert all(item.file.exists() for item in items)


def test_scores_of_another_scorer_are_not_overwritten(items: list[Item]) -> None:
    run(items, Brightness("1"))
    with pytest.raises(EcadError, match=r"scores\.json: this file has scores of brightness 1, not of brightness 2"):
        run(items, Brightness("2"))
    run(items, second := Brightness("2"), again=True)
    assert second.given == 3


def test_scores_with_another_tokenizer_are_of_another_scorer(items: list[Item]) -> None:
    scorer = replace(Brightness().scorer, parts={"tokenizer": "12ab"})
    folder = items[0].file.parent
    score_folder(folder, items, scorer, folder / "scores.json")
    with pytest.raises(
        EcadError, match=r"has scores of brightness 1, tokenizer 12ab, not of brightness 1, tokenizer 34cd"
    ):
        FolderScores(folder, items, replace(scorer, parts={"tokenizer": "34cd"}), folder / "scores.json")


def test_scores_of_a_release_that_did_not_name_parts_are_kept(items: list[Item]) -> None:
    run(items, Brightness())
    folder, again = items[0].file.parent, Brightness()
    scorer = replace(again.scorer, parts={"tokenizer": "12ab"})
    result = score_folder(folder, items, scorer, folder / "scores.json")
    assert again.given == 0
    assert result["scorer_parts"] == {"tokenizer": "12ab"}


@pytest.mark.parametrize("content", ["", "[]", '{"fid_score": 1}', '{"total_sc'])
def test_another_file_is_not_overwritten(items: list[Item], content: str) -> None:
    output = items[0].file.parent / "scores.json"
    output.write_text(content)
    with pytest.raises(EcadError, match=r"scores\.json: (this is no|cannot read this) file of scores"):
        run(items, Brightness())
    assert output.read_text() == content


@pytest.mark.parametrize("rows", [None, [], {"x": None}, {"x": {"digest": "a", "prompt_id": "b", "score": "1"}}])
def test_a_damaged_file_of_scores_is_refused(items: list[Item], rows: object) -> None:
    run(items, Brightness())
    output = items[0].file.parent / "scores.json"
    output.write_text(json.dumps({**json.loads(output.read_text()), "images": rows}))
    with pytest.raises(EcadError, match=r"scores\.json: the scores of the images are malformed"):
        run(items, Brightness())


def test_damaged_lines_of_an_interrupted_run_are_scored_again(items: list[Item]) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(items, Brightness(dies_after=2))
    journal = items[0].file.parent / ".scores.json.unfinished"
    first, *rest = [line for line in journal.read_bytes().split(b"\n") if line]
    damaged = [b"\xff", b"[1]", b"{}", b"[" * 9999, first.replace(b'"score":', b'"scare":'), *rest]
    journal.write_bytes(b"".join(b"\n" + line + b"\n" for line in damaged))
    run(items, second := Brightness())
    assert second.given == 2


def test_a_full_disk_is_told_and_the_run_goes_on(
    items: list[Item], full_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    with full_disk(400), pytest.raises(EcadError, match=r"\.unfinished: cannot write this file: File too large"):
        run(items, first := Brightness())
    run(items, second := Brightness())
    assert 0 < second.given < 3 < first.given + second.given


def test_two_processes_that_score_one_folder_end_with_the_same_scores(items: list[Item]) -> None:
    folder = items[0].file.parent
    scorer = Brightness().scorer
    both = [FolderScores(folder, items, scorer, folder / "scores.json") for _ in range(2)]
    for place in range(3):
        for scores in both:
            batch = scores.batches(1)[0]
            assert batch == [items[place]]
            scores.keep(batch, score_batch(batch, scorer))
    found = [scores.finish() for scores in both]
    assert found[0] == found[1] == json.loads((folder / "scores.json").read_text())
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".png", ".png", ".png"]


def test_references_must_have_the_images_size(items: list[Item], tmp_path: Path) -> None:
    reference = tmp_path / "reference.png"
    Image.new("RGB", (9, 8)).save(reference)
    scorer = Scorer("psnr", "", True, Brightness())
    with pytest.raises(EcadError, match=r"0000__.*png: the image is 8×8, its uncached image .*reference\.png is 9×8"):
        score_folder(tmp_path, [Item(items[0].file, PROMPTS[0], reference)], scorer, tmp_path / "scores.json")


def test_no_number_is_no_score(items: list[Item], tmp_path: Path) -> None:
    scorer = Scorer("broken", "", False, lambda images, prompts, _: np.full(len(images), np.nan))
    with pytest.raises(EcadError, match=r"0000__.*broken gave the score nan"):
        score_folder(tmp_path, items, scorer, tmp_path / "scores.json")


_KILLED = """
import os, sys
from pathlib import Path
from test_score import Brightness, Item, PROMPTS, run
class Killed(Brightness):
    def __call__(self, *arguments):
        if self.given >= 2:
            os.kill(os.getpid(), 9)
        return super().__call__(*arguments)
run([Item(file, PROMPTS[0]) for file in sorted(Path(sys.argv[1]).glob("*.png"))], Killed())
"""


def test_what_a_killed_process_scored_is_kept(items: list[Item], tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), python_path()])}
    command = [sys.executable, "-c", _KILLED, str(tmp_path)]
    assert subprocess.run(command, capture_output=True, env=environment).returncode == -9
    run([Item(item.file, PROMPTS[0]) for item in items], second := Brightness())
    assert second.given == 1
