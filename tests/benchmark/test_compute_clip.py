"""`compute_clip.py`: a CLIP score of one schedule's images, whatever their names, and what matched no prompt."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ecad.builtin import JUDGE_FOLDER, prompts
from ecad.quality import Judge

PROMPTS = prompts("held_out")[:4]
JUDGE = ("--clip-model", "judge")


def paint(folder: Path, *names: str) -> None:
    """A random picture under each name, its seed the name's place."""
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(seed)).save(folder / name)


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def expected(*pairs: tuple[int, int]) -> np.ndarray:
    """Scores of (picture, prompt)."""
    return Judge().score([picture(i) for i, _ in pairs], [PROMPTS[j] for _, j in pairs])


@pytest.fixture
def files() -> None:
    Path("coco.txt").write_text("".join(f"{text}\n" for text in PROMPTS))
    Path("parti.tsv").write_text("Prompt\tCategory\tChallenge\tNote\n" + "".join(f"{p}\tA\tB\t\n" for p in PROMPTS))
    ids = {f"id{i}": {"category": ("animals", "food")[i % 2], "prompt": text} for i, text in enumerate(PROMPTS)}
    Path("meta.json").write_text(json.dumps(ids))
    Path("list.json").write_text(json.dumps([{"id": f"a:{i}", "prompt": text} for i, text in enumerate(PROMPTS)]))


def test_mjhq_in_category_folders(script, files, tmp_path: Path) -> None:
    paint(tmp_path / "img", "animals/id0.png", "animals/id2.png", "food/id1.jpg", "food/id9.png")
    code, out, err = script("compute_clip", "--prompts-path", "meta.json", "-i", "img", "--mjhq", *JUDGE, "--json")
    assert code == 0
    assert "1 of 4 images match no prompt: id9.png" in " ".join(err.split())
    (row,) = json.loads(out)["folders"]
    assert (row["num_images"], row["num_unmatched"]) == (3, 1)
    scores = json.loads((tmp_path / "img" / "clip_scores.json").read_text())
    assert scores["clip_model"] == "judge"
    assert list(scores["avg_by_prompt"]) == ["id0", "id2", "id1"]
    assert scores["avg_by_prompt"]["id0"] == pytest.approx(expected((0, 0))[0], abs=1e-3)
    assert scores["total_score"] == row["clip_score"] == np.mean(list(scores["avg_by_prompt"].values()))


@pytest.mark.parametrize(
    ("prompt_file", "file_mode", "naming_mode", "names"),
    [
        ("coco.txt", "text", "coco", ("m_0/0.png", "m_0/0001__prompt_seed-000__image_seed-000.png", "m_1/2 x.png")),
        ("coco.txt", "txt", "toca", ("0000__image_seed:004.png", "0001__x.png", "0002__image_seed-000.png")),
        ("parti.tsv", "tsv", "parti", tuple(f"{i:04d}__prompt_seed:000__image_seed:001.png" for i in range(3))),
        (
            "list.json",
            "json",
            "image_reward",
            (
                "000__prompt_id:a:0__prompt_seed:000__image_seed:000.png",
                "001__prompt_id-a%3A1__prompt_seed-000__image_seed-000.png",
                "0002__prompt_id-a%3A2__prompt_seed-000.png",
            ),
        ),
        ("meta.json", "json", "mjhq", ("id0.png", "id1.png", "id2.png")),
    ],
)
def test_every_naming_mode(
    script, files, tmp_path: Path, prompt_file: str, file_mode: str, naming_mode: str, names: tuple[str, ...]
) -> None:
    paint(tmp_path / "img", *names)
    code, out, err = script(
        "compute_clip", "--prompts-path", prompt_file, "--image-dir", "img", "-m", file_mode,
        "--image-naming-mode", naming_mode, "--clip-model", JUDGE_FOLDER, "-o", "found/clip.json", "--json",
    )  # fmt: skip
    assert (code, "match no prompt" in err) == (0, False)
    assert json.loads(out)["folders"][0]["clip_score"] == pytest.approx(
        expected((0, 0), (1, 1), (2, 2)).mean(), abs=1e-3
    )
    assert (tmp_path / "img" / "found" / "clip.json").exists()


def test_several_schedules_are_refused_unless_each_is_asked_for(script, fails, files, tmp_path: Path) -> None:
    paint(tmp_path / "img" / "fast", "m/0.png", "m/1.png")
    paint(tmp_path / "img" / "slow", "m/0.png", "m/1.png")
    command = ("compute_clip", "--prompts-path", "coco.txt", "-i", "img", *JUDGE, "--image-naming-mode", "coco")
    assert "expected the images of one schedule, found those of fast and of slow" in fails(*command)
    assert script(*command, "--each")[0] == 0
    scores = [json.loads((tmp_path / "img" / name / "clip_scores.json").read_text()) for name in ("fast", "slow")]
    assert scores[0] == scores[1]


def test_mistakes(fails, files, tmp_path: Path) -> None:
    paint(tmp_path / "img", "x.png", "y.png")
    for arguments, told in (
        (("--prompts-path", "coco.txt", "-i", "img"), "expected images of these 4 prompts, found none among 2"),
        (("--prompts-path", "missing.txt", "-i", "img"), "missing.txt"),
        (("--prompts-path", "coco.txt", "-i", "missing"), "missing"),
        (("--prompts-path", "coco.txt", "-i", "img", "--image-naming-mode", "x"), "'x' is unknown"),
        (("--prompts-path", "coco.txt"), "--image-dir"),
        (("--prompts-path", "coco.txt", "-i", "img", "--mjhq"), "not JSON"),
    ):
        assert told in fails("compute_clip", *arguments), arguments
    paint(tmp_path / "img", "0.png")
    command = ("compute_clip", "--prompts-path", "coco.txt", "-i", "img", "--image-naming-mode", "coco")
    assert "nowhere/nothing: cannot load a CLIPModel" in fails(*command, "--clip-model", "nowhere/nothing")
    line = fails(*command)
    assert "openai/clip-vit-base-patch32: cannot load a CLIPModel" in line
    assert "Hugging Face hub or its local cache" in line
