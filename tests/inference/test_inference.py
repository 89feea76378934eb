"""`ecad infer` as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Run = Callable[..., tuple[int, str, str]]
INFER = ("infer", "EmojiImageGenerator", "--num-images-per-prompt", 1, "--schedule", "every_2.json")
MOVED = ("embeddings", "images")


@pytest.fixture(autouse=True)
def two_step_schedule(run: Run) -> None:
    assert run("schedule", "every-n", "--steps", 2, "-o", "every_2.json")[0] == 0


def pixels(folder: str) -> dict[str, np.ndarray]:
    return {path.name: np.asarray(Image.open(path)) for path in sorted(Path(folder, "images").glob("*.png"))}


def bytes_of(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder, "images").glob("*.png")}


def test_a_prompt_leaves_embeddings_and_images_and_the_embeddings_give_the_images_again(run: Run) -> None:
    Path("p.txt").write_text("a fox\na 3d hot pepper on an orange background\n")
    code, out, _ = run(*INFER, "--prompt-file", "p.txt", "--batch-size-embedding", 2, "--output-dir", "a", "--json")
    assert code == 0
    assert json.loads(out)["images"] == [f"a/images/000{i}__prompt_seed-000__image_seed-000.png" for i in (0, 1)]
    assert Path("a/embeddings/index.json").exists()
    assert run(*INFER, "--input-embeddings", "a/embeddings", "--output-dir", "b")[0] == 0
    assert not Path("b/embeddings").exists()
    first, again = pixels("a"), pixels("b")
    assert list(first) == list(again)
    assert all(np.array_equal(first[name], again[name]) for name in first)


def test_settings_are_applied(run: Run) -> None:
    command = (*INFER, "--prompt", "a fox")
    for folder, options in {
        "plain": (),
        "sized": ("--height", 32, "--width", 96),
        "strong": ("--guidance-scale", 9),
        "seeds": ("--start-seed", 5, "--seed-step", 3, "--num-images-per-prompt", 2),
    }.items():
        assert run(*command, *options, "--output-dir", folder)[0] == 0
    (plain,), (sized,), (strong,) = (pixels(name).values() for name in ("plain", "sized", "strong"))
    assert plain.shape == (64, 64, 3)
    assert sized.shape == (32, 96, 3)
    assert not np.array_equal(plain, strong)
    assert list(pixels("seeds")) == [f"0000__prompt_seed-000__image_seed-00{seed}.png" for seed in (5, 8)]


def test_earlier_images_move_to_a_folder_of_their_own(run: Run) -> None:
    Path("two.txt").write_text("a fox\nan owl\n")
    run("schedule", "none", "--steps", 2, "-o", "none.json")
    assert run(*INFER, "--prompt-file", "two.txt")[0] == 0
    files = {path: path.stat().st_mtime_ns for path in Path("outputs").rglob("*.*")}
    code, _, err = run(*INFER, "--prompt-file", "two.txt")  # the same work
    assert (code, "moved" in err) == (0, False)
    left = {path: path.stat().st_mtime_ns for path in files}
    assert {path for path in files if left[path] != files[path]} <= {Path("outputs/images/manifest.jsonl")}
    for number, (arguments, told) in enumerate(
        (
            (("--prompt-file", "two.txt", "--guidance-scale", 9), ["images: holds images made with guidance_scale"]),
            (("--prompt-file", "two.txt", "--schedule", "none.json"), ["images: holds images made under another sch"]),
            (("--prompt", "an owl"), ["embeddings: holds embeddings of other prompts", "images: holds images made"]),
        ),
        start=1,
    ):
        before = [{path.name: path.read_bytes() for path in Path("outputs", name).iterdir()} for name in MOVED]
        code, _, err = run(*INFER, *arguments)
        lines = [line for line in err.splitlines() if "moved to" in line]
        assert (code, len(lines)) == (0, len(told)), err
        for line, expected in zip(lines, told, strict=True):
            name = expected.split(":")[0]
            assert line.startswith(f"outputs/{expected}")
            assert line.endswith(f": moved to outputs/{name}_{number}")
            kept = {path.name: path.read_bytes() for path in Path(f"outputs/{name}_{number}").iterdir()}
            assert kept == before[MOVED.index(name)]
        assert run(*INFER, *arguments, "--output-dir", f"fresh{number}")[0] == 0
        assert bytes_of("outputs") == bytes_of(f"fresh{number}")


def test_overwrite_replaces_earlier_images(run: Run) -> None:
    Path("two.txt").write_text("a fox\nan owl\n")
    assert run(*INFER, "--prompt-file", "two.txt")[0] == 0
    owl = list(pixels("outputs").values())[1]
    assert run(*INFER, "--prompt", "an owl", "--overwrite")[0] == 0
    assert sorted(path.name for path in Path("outputs").iterdir()) == ["embeddings", "images"]
    assert len(pixels("outputs")) == 1
    assert np.abs(pixels("outputs").popitem()[1].astype(int) - owl).max() <= 2


def test_steps_of_the_schedule_that_are_not_the_generators_are_told(run: Run) -> None:
    told = "\n2 steps, as every_2.json has; EmojiImageGenerator itself has 20\n"
    for options, expected in (((), True), (("--steps", 2), False)):
        code, _, err = run(*INFER, "--prompt", "a fox", *options)
        assert (code, told in f"\n{err}") == (0, expected)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--prompt", "x", "--prompt-file", "p.txt"), "one of them"),
        (("--prompt", " "), "--prompt: expected a text"),
        (("--input-embeddings", "nowhere"), "nowhere: expected a folder of embeddings"),
        (("--prompt", "x", "--height", 30), "image size 30x64 does not fit EmojiImageGenerator"),
        (("--prompt", "x", "--batch-size-embedding", 0), "--batch-size-embedding"),
    ],
)
def test_a_mistake_is_one_line(run: Run, arguments: tuple[object, ...], told: str) -> None:
    code, out, err = run(*INFER, *arguments)
    assert (code, out) == (2, "")
    assert told in err.rstrip("\n").splitlines()[-1]
    assert list(Path().rglob("*.png")) == []


def test_the_script_runs_by_path() -> None:
    script = Path(__file__).parents[2] / "ecad" / "inference" / "inference.py"
    done = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True, check=True)
    for option in ("--input-embeddings", "--batch-size-embedding", "--batch-size-generate", "--start-seed"):
        assert option in done.stdout
