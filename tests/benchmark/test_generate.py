"""`ecad embed...` and `ecad generate` as a user types them: what they leave, what they say, what they refuse."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ecad.images.folder import read_manifest
from ecad.prompts import match_images, read_prompts
from ecad.prompts.store import find_stored

Run = Callable[..., tuple[int, str, str]]
EMOJI = ("--image-generator", "EmojiImageGenerator")
SCRIPTS = Path(__file__).parents[2] / "ecad" / "benchmark"


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def schedule(run: Run, name: str, n: int, *, steps: int = 2, generator: str = "EmojiImageGenerator") -> None:
    done = run("schedule", "every-n", "--n", n, "--steps", steps, "--image-generator", generator, "-o", f"{name}.json")
    assert done[0] == 0


def test_coco_from_captions_to_images(run: Run) -> None:
    captions = ["A batter has just hit the baseball.", "Red motor ", "scooter parked on the sand.", "A cat on a mat."]
    Path("coco.txt").write_text("\n".join(captions) + "\n")
    code, out, err = run(
        "embed-coco", *EMOJI, "--file-path", "coco.txt", "--output-dir", "e", "--prompt-batch-size", 3, "--seed", 0,
        "--seed-step", 0, "--json",
    )  # fmt: skip
    assert code == 0
    assert json.loads(out)["prompts"] == 4
    assert "coco.txt: 4 lines, of which 1 seem to end inside a caption (line 2); every line is taken" in err
    schedule(run, "s/every_2", 2)
    code, out, _ = run(
        "generate", *EMOJI, "-i", "e", "-d", "s", "-o", "o", "-n", 1, "-b", 3, "--seed", 7, "--seed-step", 1
    )
    assert code == 0
    assert out.strip() == "4 images under 1 schedules in o"
    images = sorted(Path("o/every_2/megabatch_0").glob("*.png"))
    assert images[0].name == "0000__prompt_seed-000__image_seed-007.png"
    matched, unmatched = match_images(images, read_prompts("coco.txt"), "coco")
    assert [prompt.text for _, prompt in matched] == [caption.strip() for caption in captions]
    assert unmatched == []


def test_mjhq_names_images_by_their_ids(run: Run) -> None:
    prompts = {"b7": {"category": "food", "prompt": "a pie"}, "c8": {"category": "animals", "prompt": "a fox"}}
    Path("mjhq.json").write_text(json.dumps(prompts))
    assert run("embed-mjhq", *EMOJI, "-f", "mjhq.json", "-o", "e", "--prompt-batch-size", 1)[0] == 0
    assert sorted(find_stored("e")) == ["animals", "food"]
    schedule(run, "every_2", 2)
    assert run("generate", *EMOJI, "-i", "e", "-d", "every_2.json", "-o", "o", "-n", 1, "--dont-include-seed")[0] == 0
    images = sorted(Path("o").rglob("*.png"))
    assert [str(image) for image in images] == ["o/every_2/animals/c8.png", "o/every_2/food/b7.png"]
    assert read_manifest(Path("o/every_2"))[1]["food/b7.png"]["category"] == "food"
    assert len(match_images(images, read_prompts("mjhq.json"), "mjhq")[0]) == 2
    code, _, err = run("generate", *EMOJI, "-i", "e", "-d", "every_2.json", "-o", "p", "-n", 2, "--dont-include-seed")
    assert code == 2
    assert "several images would have this name" in err


def test_parti_takes_quotes_as_text(run: Run) -> None:
    Path("parti.tsv").write_text('Prompt\tCategory\na "dog"\tAnimals\n"bond\tAbstract\n')
    assert run("embed-parti", *EMOJI, "-f", "parti.tsv", "-o", "e", "-b", 2, "-s", 3)[0] == 0
    entries = [item.entry for item in find_stored("e")["."]]
    assert [(entry.prompt.text, entry.seed, entry.stem) for entry in entries] == [
        ('a "dog"', 3, "0000__prompt_seed-003"),
        ('"bond', 3, "0001__prompt_seed-003"),
    ]


def test_folders_of_schedules_are_taken_whole_and_what_does_not_fit_is_told(run: Run) -> None:
    Path("p.json").write_text('[{"id": "005695-0057", "prompt": "a fox"}]')
    assert run("embed", *EMOJI, "--file-path", "p.json", "--output-dir", "e", "--batch-size", 1, "--seed", 0)[0] == 0
    schedule(run, "s/emoji/every_2", 2)
    schedule(run, "s/alpha/every_2", 2, generator="PixArtAlphaImageGenerator")
    code, out, err = run("generate", *EMOJI, "-i", "e", "-d", "s", "-o", "o", "-n", 1, "--json")
    assert code == 0
    assert json.loads(out) == {"images": 1, "folders": ["o/emoji/every_2"]}
    assert "alpha/every_2: left out: schedule 'every_2' does not fit" in err
    name = "0000__prompt_id-005695-0057__prompt_seed-000__image_seed-000.png"
    assert (Path("o/emoji/every_2") / name).exists()
    code, _, err = run("generate", *EMOJI, "-i", "e", "-d", "s/alpha", "-o", "p", "-n", 1)
    assert code == 2
    assert "28 blocks" in err


def test_regen_passes_over_schedules_that_have_their_images(run: Run) -> None:
    Path("p.txt").write_text("a fox\nan owl\n")
    run("embed", *EMOJI, "-f", "p.txt", "-o", "e")
    schedule(run, "every_2", 2)
    command = ("generate", *EMOJI, "-i", "e", "-d", "every_2.json", "-o", "o", "-n", 1, "-b", 1)
    run(*command)
    whole = contents(Path("o"))
    code, out, _ = run(*command, "--regen-if-not-n-images", 2)
    assert code == 0
    assert out.startswith("nothing to do")
    next(Path("o").rglob("*.png")).unlink()
    assert run(*command, "--regen-if-not-n-images", 2)[0] == 0
    assert contents(Path("o")) == whole


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("embed", *EMOJI, "-f", "missing.txt", "-o", "e"), "missing.txt: cannot read these prompts: No such file"),
        (("embed", *EMOJI, "-f", "empty.txt", "-o", "e"), "empty.txt: there is no prompt in this file"),
        (("embed", *EMOJI, "-f", "p.txt", "-o", "empty.txt/e"), "empty.txt/e: cannot write to this folder"),
        (("embed", *EMOJI, "-f", "p.txt"), "output-dir"),
        (("embed", *EMOJI, "-f", "p.txt", "-o", "e", "-b", 0), "--batch-size"),
        (("embed", *EMOJI, "-f", "p.txt", "-o", "e", "--sede", 0), "--sede"),
        (("embed", "--image-generator", "Nope", "-f", "p.txt", "-o", "e"), "'Nope' is unknown: expected one of Emoji"),
        (
            ("embed", "--image-generator", "FluxImageGenerator", "-f", "p.txt", "-o", "e"),
            "pass the folder of a downloaded pipeline as --weights",
        ),
        (("embed", *EMOJI, "-f", "p.txt", "-o", "e", "--weights", "nowhere"), "'nowhere'"),
        (("embed-parti", *EMOJI, "-f", "p.txt", "-o", "e"), "p.txt: line 1: no column holds prompts"),
        (("embed-mjhq", *EMOJI, "-f", "p.txt", "-o", "e"), "p.txt: not JSON"),
        (("embed-coco", *EMOJI, "-f", "empty.txt", "-o", "e"), "empty.txt: there is no prompt in this file"),
        (("generate", *EMOJI, "-i", "missing", "-d", "s.json", "-o", "o"), "missing: expected a folder of embeddings"),
        (("generate", *EMOJI, "-i", "nothing", "-d", "s.json", "-o", "o"), "nothing: no embeddings"),
        (("generate", *EMOJI, "-i", "e", "-d", "missing.json", "-o", "o"), "missing.json"),
        (("generate", *EMOJI, "-i", "e", "-d", "nothing", "-o", "o"), "nothing: no schedule files"),
        (("generate", *EMOJI, "-i", "e", "-d", "s.json", "-o", "o", "--shard", "3/2"), "--shard: expected i/n"),
        (("generate", *EMOJI, "-i", "e", "-d", "s.json", "-o", "o", "--shard", "x"), "--shard: expected i/n"),
        (("fetch", "everything"), "'everything' is unknown: expected some of coco, drawbench, image-reward, mjhq"),
        (("fetch",), "Missing argument 'names'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_mistake_is_one_line_and_leaves_nothing(run: Run, arguments: tuple[object, ...], told: str) -> None:
    Path("empty.txt").write_text("\n \n")
    Path("p.txt").write_text("a fox\n")
    Path("nothing").mkdir()
    schedule(run, "s", 2)
    before = contents(Path())
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert told in err.rstrip("\n").splitlines()[-1]
    assert err.rstrip("\n").splitlines()[-1].startswith("ecad: ")
    assert "Traceback" not in err
    assert contents(Path()) == before


@pytest.mark.parametrize(
    ("script", "flags"),
    [
        ("generate_embeddings", ["-f", "--file-path", "-o", "--output-dir", "-b", "--batch-size", "-s", "--seed"]),
        (
            "generate_embeddings_parti",
            ["-f", "--file-path", "-o", "--output-dir", "-b", "--batch-size", "-s", "--seed"],
        ),
        ("generate_coco_embeddings", ["-f", "-o", "--prompt-batch-size", "--seed", "--seed-step"]),
        ("generate_mjhq_embeddings", ["-f", "-o", "--prompt-batch-size", "--seed", "--seed-step"]),
        (
            "generate_images",
            [
                *("-i", "--input-dir", "-d", "--schedule-dir", "-o", "-n", "--num-images-per-prompt", "-b", "--seed"),
                *("--seed-step", "--regen-if-not-n-images", "--dont-include-seed", "--shard"),
            ],
        ),
    ],
)
def test_scripts_run_by_path_with_the_flags_that_users_know(script: str, flags: list[str]) -> None:
    command = [sys.executable, str(SCRIPTS / f"{script}.py"), "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for flag in ["--image-generator", *flags]:
        assert f"{flag} " in shown or f"{flag}," in shown
