"""`score_images.py`: which images are scored with which prompt, what is left out, what is told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ecad.builtin import prompts
from ecad.quality import Judge, psnr

PROMPTS = prompts("held_out")[:3]
NAMES = {
    "image_reward": "{place:03d}__prompt_id:{id}__prompt_seed:000__image_seed:{seed:03d}.png",
    "parti": "{place:04d}__prompt_seed:000__image_seed:{seed:03d}.png",
    "toca": "{place:04d}__image_seed:{seed:03d}.png",
    "mjhq": "{id}.png",
    "coco": "{place}.png",
}


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def paint(folder: Path, mode: str = "image_reward", seeds: tuple[int, ...] = (0, 1)) -> list[Path]:
    """Images of all prompts under published names, of each seed a random picture."""
    folder.mkdir(parents=True)
    files = []
    for place in range(len(PROMPTS)):
        for seed in seeds:
            files.append(folder / NAMES[mode].format(place=place, id=f"id-{place}", seed=seed))
            Image.fromarray(picture(10 * place + seed)).save(files[-1])
    return files


@pytest.fixture
def command(script, tmp_path: Path) -> tuple[object, ...]:
    Path("prompts.json").write_text(json.dumps([{"id": f"id-{i}", "prompt": text} for i, text in enumerate(PROMPTS)]))
    return ("score_images", "--benchmark-prompts", "prompts.json", "--image-dir", "images", "--scorer", "judge")


def expected(seeds: tuple[int, ...] = (0, 1)) -> np.ndarray:
    judge = Judge()
    images = np.stack([picture(10 * place + seed) for place in range(len(PROMPTS)) for seed in seeds])
    return judge.score(images, [text for text in PROMPTS for _ in seeds]).reshape(len(PROMPTS), len(seeds))


def test_each_folder_of_images_gets_its_scores(script, command, tmp_path: Path) -> None:
    paint(tmp_path / "images" / "fast" / "batch_0")
    paint(tmp_path / "images" / "slow" / "batch_0", seeds=(0,))
    code, out, _ = script(*command, "--file-mode", "json", "--image-naming-mode", "image_reward", "--json")
    assert code == 0
    rows = {Path(row["folder"]).parent.name: row for row in json.loads(out)["folders"]}
    assert {name: (row["num_images"], row["num_prompts"]) for name, row in rows.items()} == {
        "fast": (6, 3),
        "slow": (3, 3),
    }
    scores = json.loads((tmp_path / "images/fast/batch_0/scores.json").read_text())
    found = [list(row.values()) for row in scores["score_by_prompt_id"].values()]
    assert np.array(found) == pytest.approx(expected(), abs=1e-3)
    assert list(scores["score_by_prompt_id"]) == ["id-0", "id-1", "id-2"]
    assert list(scores["score_by_prompt_id"]["id-0"]) == ["000", "001"]
    assert scores["total_score"] == rows["fast"]["total_score"] == pytest.approx(expected().mean(), abs=1e-3)
    code, out, _ = script(*command, "-o", "judged/again.json", "-n", 6)
    assert code == 0
    assert out.startswith("images/fast/batch_0: judge ")
    assert len(out.splitlines()) == 1
    assert (tmp_path / "images/fast/batch_0/judged/again.json").exists()


@pytest.mark.parametrize("mode", ["parti", "toca", "mjhq", "coco"])
def test_every_naming_mode_finds_the_prompts(script, command, tmp_path: Path, mode: str) -> None:
    paint(tmp_path / "images", mode, seeds=(0,))
    Path("prompts.tsv").write_text("Prompt\tCategory\n" + "".join(f"{text}\tx\n" for text in PROMPTS))
    Path("prompts.txt").write_text("".join(f"{text}\n" for text in PROMPTS))
    file = {"parti": "prompts.tsv", "mjhq": "prompts.json"}.get(mode, "prompts.txt")
    options = ("--file-mode", "text") if mode == "coco" else ()
    code, out, err = script(*command, "--benchmark-prompts", file, "--image-naming-mode", mode, *options, "--json")
    assert code == 0
    assert "match no prompt" not in err
    (row,) = json.loads(out)["folders"]
    assert row["total_score"] == pytest.approx(expected((0,)).mean(), abs=1e-3)


def test_strangers_are_told_and_never_deleted(script, command, tmp_path: Path) -> None:
    files = paint(tmp_path / "images")
    for name in ("stranger.png", "009__prompt_id:id-9__prompt_seed:000__image_seed:000.png"):
        Image.fromarray(picture(0)).save(tmp_path / "images" / name)
    code, out, err = script(*command, "--delete-after")
    assert code == 0
    assert "images: 2 of 8 images match no prompt: " in " ".join(err.split())
    assert "stranger.png" in err
    assert not any(file.exists() for file in files)
    assert len(list((tmp_path / "images").glob("*.png"))) == 2
    assert "6 images of 3 prompts" in out


def test_a_folder_of_other_images_is_left_out(script, command, tmp_path: Path) -> None:
    paint(tmp_path / "images" / "fast")
    stranger = tmp_path / "images" / "mine" / "photo.png"
    stranger.parent.mkdir()
    Image.new("RGB", (8, 8)).save(stranger)
    code, out, err = script(*command, "--json")
    assert code == 0
    assert list(json.loads(out)["left_out"]) == ["images/mine"]
    assert "images/mine: left out: expected images of these " in err


def test_scores_of_the_first_release_stay_until_told_otherwise(script, command, fails, tmp_path: Path) -> None:
    paint(tmp_path / "images")
    old = tmp_path / "images" / "scores.json"
    old.write_text('{"total_score": 1.0, "avg_by_prompt": {}, "score_by_prompt_id": {}}')
    assert "all left out" in fails(*command)
    assert json.loads(old.read_text())["total_score"] == 1.0
    assert script(*command, "--rescore-existing")[0] == 0
    assert json.loads(old.read_text())["scorer"] == "judge"


def test_fidelity_is_to_the_uncached_image_of_the_same_name(script, command, fails, tmp_path: Path) -> None:
    files = paint(tmp_path / "images" / "fast" / "m")
    uncached = paint(tmp_path / "uncached" / "m")
    for file in uncached:
        image = np.asarray(Image.open(file)).astype(int)
        Image.fromarray(np.clip(image + 9, 0, 255).astype(np.uint8)).save(file)
    code, _, _ = script(*command, "--scorer", "psnr", "--reference-dir", "uncached")
    assert code == 0
    pairs = [[np.asarray(Image.open(path))[None] for path in pair] for pair in zip(files, uncached, strict=True)]
    scores = json.loads((files[0].parent / "scores.json").read_text())
    assert scores["total_score"] == pytest.approx(np.mean([psnr(*pair) for pair in pairs]))
    uncached[0].unlink()
    assert "expected the uncached image of" in fails(*command, "--scorer", "psnr", "--reference-dir", "uncached")


def test_mistakes(fails, command, tmp_path: Path) -> None:
    files = paint(tmp_path / "images")
    Path("other.txt").write_text("a pie\n")
    Path("nothing").mkdir()
    for arguments, told in (
        (("--benchmark-prompts", "missing.json"), "missing.json"),
        (("--image-dir", "missing"), "missing: expected a folder of images"),
        (("--image-dir", "nothing"), "nothing: there are no images"),
        (("--benchmark-prompts", "other.txt"), "expected images of these 1 prompts, found none among 6"),
        (("--image-naming-mode", "mine"), "'mine' is unknown"),
        (("--file-mode", "xml"), "'xml' is unknown"),
        (("--exactly-n-images", 5), "all left out"),
        (("--scorer", "beauty"), "'beauty' is unknown"),
        (("--scorer", "psnr"), "give --reference-dir"),
        (("--reference-dir", "images"), "leave out --reference-dir"),
        (("--scorer", "image_reward"), "THUDM/ImageReward"),
        (
            ("--scorer", "image_reward", "--weights", "missing"),
            "missing: no such file; give the folder or file of ImageReward's",
        ),
        (("--scorer", "clip"), "openai/clip-vit-base-patch32"),
    ):
        assert told in fails(*command, *arguments), arguments
    assert not (tmp_path / "images" / "scores.json").exists()
    files[2].write_bytes(files[2].read_bytes()[:50])
    assert "cannot read this image" in fails(*command)
    assert not (tmp_path / "images" / "scores.json").exists()


def test_videos_are_scored_by_frame(script, command, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for place in range(len(PROMPTS)):
        strip = np.concatenate([picture(10 * place), picture(10 * place + 1)])
        Image.fromarray(strip).save(tmp_path / "images" / NAMES["mjhq"].format(id=f"id-{place}"))
    names = ("--file-mode", "json", "--image-naming-mode", "mjhq")
    code, out, _ = script(*command, *names, "--frames", 2, "--json")
    assert code == 0
    [row] = json.loads(out)["folders"]
    assert row["total_score"] == pytest.approx(expected().mean(), abs=1e-3)
    code, _, err = script(*command, *names)
    assert code == 2
    assert "this file has scores of judge built-in" in err
    code, _, err = script(*command, *names, "--frames", 3, "--rescore-existing")
    assert code == 2
    assert "128 pixels are not the height of 3 frames" in err
