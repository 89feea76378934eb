"""The dataset walk-through of docs/benchmark.md, command by command as it stands there, on small files."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ecad.builtin import prompts

PAGE = Path(__file__).parents[2] / "docs" / "benchmark.md"
CAPTIONS = prompts("held_out")[:2]


def commands(title: str) -> list[list[str]]:
    """The shell lines under a title of the page."""
    section = PAGE.read_text(encoding="utf-8").split(f"## {title}\n")[1].split("\n## ")[0]
    lines = "".join(re.findall(r"```sh\n(.*?)```", section, re.DOTALL)).splitlines()
    assert lines
    return [shlex.split(line) for line in lines]


@pytest.fixture
def walk(script, run) -> Callable[[str], list[str]]:
    """Give the commands under a title; each must succeed. Gives what they print."""

    def walked(title: str) -> list[str]:
        printed = []
        for program, *arguments in commands(title):
            if program == "python":
                code, out, err = script(Path(arguments[0]).stem, *arguments[1:])
            else:
                code, out, err = run(*arguments)
            assert code == 0, (arguments, err)
            printed.append(out)
        return printed

    return walked


def read(file: str) -> dict:
    return json.loads(Path(file).read_text())


def test_coco_then_mjhq_from_prompts_to_fid_and_clip(walk, tmp_path: Path) -> None:
    Path("prompts").mkdir()
    Path("prompts/COCO_caption_prompts_30k.txt").write_text("".join(f"{caption}\n" for caption in CAPTIONS))
    metadata = {f"id{i}": {"category": ("animals", "food")[i % 2], "prompt": text} for i, text in enumerate(CAPTIONS)}
    Path("prompts/MJHQ-30K-prompts.json").write_text(json.dumps(metadata))
    rng = np.random.default_rng(0)
    for place in ("coco", "mjhq/animals", "mjhq/food"):
        Path("references", place).mkdir(parents=True)
        for i in range(3):
            picture = Image.fromarray(rng.integers(0, 256, (80, 60, 3), dtype=np.uint8))
            picture.save(Path("references", place, f"{i}.jpg"))

    printed = walk("COCO")
    assert "2 images of 2 prompts" in printed[-3]
    assert "2 images matched, 0 not" in printed[-2]
    assert "2 images against 3 reference images" in printed[-1]
    for name in ("none", "every_3"):
        assert len(list(Path("images/coco", name, "megabatch_0").glob("*.png"))) == 2
        # Images of the built-in model fit their own captions; noise and others' images score near 0.
        assert read(f"images/coco/{name}/megabatch_0/scores.json")["total_score"] > 50
    clip, fid = (read(f"images/coco/every_3/{kind}_scores.json") for kind in ("clip", "fid"))
    # The judge is a CLIPModel: the same numbers by another way.
    assert clip["total_score"] == pytest.approx(read("images/coco/every_3/megabatch_0/scores.json")["total_score"])
    assert (fid["num_generated"], fid["num_reference"]) == (2, 3)
    assert fid["fid_score"] > 0

    printed = walk("MJHQ")
    assert len(printed[-1].splitlines()) == len(printed[-2].splitlines()) == 2
    for name in ("none", "every_3"):
        files = sorted(path.relative_to(f"images/mjhq/{name}") for path in Path("images/mjhq", name).rglob("*.png"))
        assert [file.as_posix() for file in files] == ["animals/id0.png", "food/id1.png"]
        assert read(f"images/mjhq/{name}/clip_scores.json")["num_unmatched"] == 0
        assert read(f"images/mjhq/{name}/clip_scores.json")["total_score"] > 50
        assert read(f"images/mjhq/{name}/fid_scores.json")["num_reference"] == 6
