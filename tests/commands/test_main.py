"""The commands as a user types them: what they leave, and that a mistake is one line and exit code 2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ecad.cli import main
from ecad.cost import find_architecture
from ecad.cost.memory import kept_bytes
from ecad.schedules import CacheSchedule
from ecad.schedules.provenance import made_for

PROMPT = "a 3d crab on a blue background"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):  # type: ignore[no-untyped-def]
    """Run `ecad ...` in an empty folder; gives exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def ecad(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ecad", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return ecad


@pytest.mark.usefixtures("few_steps")
def test_infer_writes_one_image_a_seed_and_applies_the_schedule(run) -> None:  # type: ignore[no-untyped-def]
    assert run("schedule", "every-n", "--n", 4, "-o", "every_4.json")[0] == 0
    plain = ("infer", "EmojiImageGenerator", "--prompt", PROMPT, "--num-images-per-prompt", 2, "--json")
    code, out, _ = run(*plain, "--output-dir", "plain")
    assert code == 0
    files = json.loads(out)["images"]
    assert len(files) == 2
    assert run(*plain, "--output-dir", "again", "--batch-size-generate", 2)[0] == 0
    assert run(*plain, "--output-dir", "cached", "--schedule", "every_4.json")[0] == 0
    names = [Path(file).name for file in files]
    assert not any(":" in name for name in names)
    for name in names:
        images = [
            np.asarray(Image.open(Path(folder, "images", name))).astype(int) for folder in ("plain", "again", "cached")
        ]
        assert images[0].shape == (64, 64, 3)
        assert np.abs(images[0] - images[1]).max() <= 2
        assert np.abs(images[0] - images[2]).max() > 2


def test_schedules_are_written_and_shown(run) -> None:  # type: ignore[no-untyped-def]
    for command in (
        ("none",),
        ("every-n", "--n", 3, "--components", "attn1,ff"),
        ("evenly-spaced", "--num-blocks", 4, "--num-steps", 10),
        ("middle", "--num-blocks", 4, "--num-steps", 10),
        ("tgate", "--gate", 8),
    ):
        model = ("--image-generator", "PixArtAlphaImageGenerator")
        assert run("schedule", *command, *model, "-o", "s.json", "--overwrite")[0] == 0
        assert CacheSchedule.load("s.json").recompute.shape == (20, 84)
        code, out, _ = run("schedule", "show", "s.json")
        assert code == 0
        assert "20 steps × 28 blocks" in out


@pytest.mark.usefixtures("few_steps")
def test_optimize_leaves_a_front_and_goes_on(run) -> None:  # type: ignore[no-untyped-def]
    Path("two.txt").write_text(f"{PROMPT}\na twitter owl on a red background\n")
    settings = ("--mode", "paper", "--population-size", 4, "--prompt-file", "two.txt", "--held-out-file", "two.txt")
    command = ("optimize", "-o", "study", *settings, "--json", "--generations")
    code, out, _ = run(*command, 1)
    assert code == 0
    for row in json.loads(out)["front"]:
        schedule = CacheSchedule.load(Path("study", "front", f"{row['name']}.json"))
        assert schedule.metrics["total_macs"] == row["macs"]
        assert not schedule.forecast
        provenance, _ = made_for(schedule.attributes)
        assert provenance.model == "EmojiImageGenerator"
        assert {name: score.mean for name, score in provenance.held_out.items()} == {
            name: entry["mean"] for name, entry in row["held_out"].items()
        }
        assert set(row["held_out"]) == {"psnr", "judge"}
    assert len(list(Path("study/gen_000/candidates").iterdir())) == 4
    assert run("optimize", "-o", "study", "--resume", "--generations", 2, "--json")[0] == 0
    assert len(list(Path("study/gen_001/candidates").iterdir())) == 4
    code, _, err = run(*command, 2, "--seed", 1)
    assert code == 2
    assert "seed" in err.splitlines()[-1]


@pytest.mark.usefixtures("few_steps")
def test_a_search_by_time_keeps_its_prices_and_its_limits(run) -> None:  # type: ignore[no-untyped-def]
    Path("one.txt").write_text(f"{PROMPT}\n")
    files = ("--prompt-file", "one.txt", "--held-out-file", "one.txt")
    limits = ("--population-size", 2, "--max-cached-mb", 0.5)
    command = ("optimize", "-o", "timed", "--cost", "latency", *limits, *files, "--json")
    code, out, _ = run(*command, "--generations", 1)
    assert code == 0
    times = Path("timed/times.json").read_text()
    result = json.loads(out)
    assert all(0 < row["ns"] <= result["uncached_ns"] for row in result["front"])
    for row in result["front"]:
        schedule = CacheSchedule.load(Path("timed", "front", f"{row['name']}.json"))
        assert schedule.metrics["expected_ms"] == row["ns"] / 1e6
        assert "total_macs" not in schedule.metrics
        assert kept_bytes(schedule, find_architecture("EmojiImageGenerator")) <= 500_000
    tried = [CacheSchedule.load(path).forecast for path in Path("timed/gen_000/candidates").iterdir()]
    assert True in tried
    assert run(*command, "--generations", 1)[1] == out
    assert Path("timed/times.json").read_text() == times
    Path("timed/times.json").write_text("{}")
    code, _, err = run(*command, "--generations", 1)
    assert (code, "times.json" in err) == (2, True)


MISTAKES = [
    (("infer", "EmojiImageGenerator", "--prmpt", "x"), "--prmpt"),
    (("infer", "EmojiImageGenerator"), "--prompt-file or --input-embeddings"),
    (("infer", "Nope", "--prompt", "x"), "'Nope' is unknown"),
    (("infer", "EmojiImageGenerator", "--prompt-file", "missing.txt"), "missing.txt"),
    (("infer", "EmojiImageGenerator", "--prompt-file", "empty.txt"), "empty.txt: there is no prompt in this file"),
    (("infer", "EmojiImageGenerator", "--prompt", "x", "--schedule", "missing.json"), "missing.json"),
    (("infer", "EmojiImageGenerator", "--prompt", "x", "--schedule", "broken.json"), "broken.json"),
    (("infer", "EmojiImageGenerator", "--prompt", "x", "--schedule", "pixart.json"), "28 blocks"),
    (("infer", "EmojiImageGenerator", "--prompt", "x", "--output-dir", "empty.txt/out"), "empty.txt/out"),
    (("optimize", "-o", "study", "--mode", "paper"), "--generations, --max-images, --max-minutes or --patience"),
    (("optimize", "-o", "study", "--generations", 1, "--mode", "slow"), "slow"),
    (("optimize", "-o", "study", "--generations", 1, "--quality", "beauty"), "beauty"),
    (("optimize", "-o", "study", "--generations", 1, "--initial-dir", "missing"), "missing"),
    (("optimize", "-o", "empty.txt/study", "--generations", 1, "--prompt-file", "one.txt"), "empty.txt"),
    (("optimize", "-o", "study", "--generations", 1, "--cost", "money"), "money"),
    (("optimize", "-o", "nothing", "--resume"), "nothing: --resume"),
    (("optimize", "-o", "study", "--generations", 1, "--second-quality", "psnr"), "--second-quality"),
    (("schedule", "show", "broken.json"), "broken.json"),
    (("schedule", "every-n", "--n", 0, "-o", "x.json"), "--n"),
    (("schedule", "every-n", "--components", "nose", "-o", "x.json"), "nose"),
    (("schedule", "none", "--image-generator", "Nope", "-o", "x.json"), "'Nope' is unknown"),
    (("schedule", "none", "-o", "empty.txt/x.json"), "empty.txt/x.json"),
    (("report", "missing"), "missing"),
    (("demo", "-o", "empty.txt/demo"), "empty.txt"),
    (("nonsense",), "nonsense"),
]


@pytest.mark.parametrize(("arguments", "told"), MISTAKES, ids=lambda value: value if isinstance(value, str) else "")
def test_a_mistake_is_one_line_and_exit_code_2(run, arguments: tuple[object, ...], told: str) -> None:  # type: ignore[no-untyped-def]
    Path("empty.txt").write_text("")
    Path("one.txt").write_text(PROMPT)
    Path("broken.json").write_text('{"cache_schedule": {')
    run("schedule", "none", "--image-generator", "PixArtAlphaImageGenerator", "-o", "pixart.json")
    before = sorted(Path().rglob("*"))
    code, out, err = run(*arguments)
    last = err.rstrip("\n").splitlines()[-1]
    assert (code, out) == (2, "")
    assert last.startswith("ecad: ")
    assert told in last
    assert "Traceback" not in err
    assert sorted(path for path in Path().rglob("*") if path.suffix in {".json", ".png", ".html"}) == sorted(
        path for path in before if path.suffix == ".json"
    )


def test_a_program_that_calls_a_command_keeps_its_warnings_and_its_environment(run) -> None:  # type: ignore[no-untyped-def]
    def show(*_: object, **__: object) -> None:
        raise AssertionError

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.showwarning = show
        filters, environment = list(warnings.filters), dict(os.environ)
        assert run("models")[0] == 0
        assert (
            run("infer", "EmojiImageGenerator", "--prompt", "x", "--schedule", "none.json", "--require-exact")[0] == 2
        )
        assert warnings.filters == filters
        assert warnings.showwarning is show
        assert dict(os.environ) == environment


def test_python_m_ecad_is_ecad() -> None:
    done = subprocess.run([sys.executable, "-m", "ecad", "models"], capture_output=True, text=True, check=True)
    assert "EmojiImageGenerator" in done.stdout


def test_models_lists_generators_and_families(run) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = run("models", "--json")
    assert code == 0
    found = json.loads(out)
    assert "EmojiImageGenerator" in found["image_generators"]
    flux = next(family for family in found["families"] if "FluxTransformer2DModel" in family["transformers"])
    assert flux["blocks"][1] == {
        "block": "single_N",
        "components": ["single_attn", "single_proj_mlp", "single_proj_out"],
        "skipped_with": {"single_attn": "single_proj_out", "single_proj_mlp": "single_proj_out"},
    }
    assert "FluxKontextPipeline" in flux["tested_pipelines"]
    code, out, _ = run("models")
    assert code == 0
    for name in (*found["image_generators"], *(family["name"] for family in found["families"])):
        assert name in out
