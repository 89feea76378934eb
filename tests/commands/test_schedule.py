"""`ecad schedule import`, `resample` and `transfer` as a user types them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from ecad.cli import main
from ecad.schedules import CacheSchedule, heuristics, pixart_sites

ALPHA = ("--image-generator", "PixArtAlphaImageGenerator")
SIGMA = ("--image-generator", "PixArtSigmaImageGenerator")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):  # type: ignore[no-untyped-def]
    """Run `ecad schedule ...` in an empty folder; gives exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def schedule(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ecad", "schedule", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return schedule


def found() -> CacheSchedule:
    made = heuristics.every_n(pixart_sites(28), 20, 2)
    return made.replace(config={"height": 256, "width": 256, "transformer_weights": "a"}, metrics={"total_macs": 1})


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("step-mask", "1010"),
        ("step-mask", "mask.txt"),
        ("steps", "0,2"),
        ("steps", "steps.json"),
        ("smoothcache", "smooth.json"),
    ],
)
def test_import_from_an_argument_or_a_file(run, kind: str, source: str) -> None:  # type: ignore[no-untyped-def]
    Path("mask.txt").write_text("1010\n")
    Path("steps.json").write_text("[0, 2]")
    Path("smooth.json").write_text('{"attn": [1, 0, 1, 0], "attn2": [1, 0, 1, 0], "mlp": [1, 0, 1, 0]}')
    code, out, _ = run("import", source, "--from", kind, *ALPHA, "--steps", 4, "-o", "s.json", "--json")
    assert code == 0
    assert json.loads(out) == {
        "file": "s.json",
        "name": kind,
        "steps": 4,
        "rows": 4,
        "sites": 84,
        "share_recomputed": 0.5,
        "forecast": False,
    }
    expected = heuristics.every_n(pixart_sites(28), 4, 2)
    assert np.array_equal(CacheSchedule.load("s.json").recompute, expected.recompute)


def test_a_file_that_holds_something_else_is_kept(run) -> None:  # type: ignore[no-untyped-def]
    every_2, every_3 = (("every-n", "--n", n, *ALPHA, "--steps", 4, "-o", "a.json") for n in (2, 3))
    assert run(*every_2)[0] == 0
    measured = CacheSchedule.load("a.json").replace(metrics={"total_macs": 1})
    measured.save("a.json")
    assert run(*every_2)[0] == 0
    code, out, err = run(*every_3)
    told = "ecad: a.json: this file exists; choose another name, or give --overwrite to replace it\n"
    assert (code, out, err) == (2, "", told)
    assert CacheSchedule.load("a.json").metrics == measured.metrics
    assert run(*every_3, "--overwrite")[0] == 0
    assert CacheSchedule.load("a.json").name == "every_3"
    code, _, err = run("sglang", "a.json", "-o", "a.json")
    assert (code, err) == (2, told)


def test_every_n_tells_its_default(run) -> None:  # type: ignore[no-untyped-def]
    code, out, err = run("every-n", *ALPHA, "-o", "a.json")
    assert (code, out) == (0, "a.json: every_2, 20 rows, 50.0% recomputed\n")
    assert err == "--n is not given: every second step is recomputed (--n 2)\n"


def test_resample_writes_what_the_method_makes(run) -> None:  # type: ignore[no-untyped-def]
    found().save("a.json")
    code, out, _ = run("resample", "a.json", "--steps", 30, "-o", "b.json")
    assert (code, out) == (0, "b.json: every_2_at_30_steps, 30 rows, 50.0% recomputed\n")
    assert CacheSchedule.load("b.json") == found().resample(30)


def test_transfer_keeps_the_bits_and_drops_what_was_of_the_old_model(run) -> None:  # type: ignore[no-untyped-def]
    found().save("a.json")
    code, out, _ = run("transfer", "a.json", *SIGMA, "--height", 1024, "--width", 512, "-o", "b.json", "--json")
    assert code == 0
    assert json.loads(out)["sites"] == 84
    carried = CacheSchedule.load("b.json")
    assert np.array_equal(carried.recompute, found().recompute)
    assert (carried.config, carried.metrics) == ({"height": 1024, "width": 512}, {})


def test_transfer_to_a_model_of_another_depth(run) -> None:  # type: ignore[no-untyped-def]
    found().save("a.json")
    assert run("transfer", "a.json", "--image-generator", "EmojiImageGenerator", "-o", "b.json")[0] == 0
    carried = CacheSchedule.load("b.json")
    assert np.array_equal(carried.recompute, heuristics.every_n(pixart_sites(12), 20, 2).recompute)
    assert carried.config == {"height": 64, "width": 64}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("import", "missing.json", "--from", "smoothcache"), "missing.json"),
        (("import", "10", "--from", "nothing"), "expected smoothcache, step-mask, steps, found nothing"),
        (("import", "0,3", "--from", "steps"), "needs the argument steps"),
        (("import", "1010", "--from", "step-mask", "--steps", 5), "expected 5 steps, found 4 steps"),
        (("import", "folder", "--from", "steps", "--steps", 5), "folder: cannot read this file"),
        (("import", "utf16.txt", "--from", "step-mask"), "utf16.txt: cannot read this file: it is not UTF-8 text"),
        (("import", "1", "--from", "step-mask", "--image-generator", "Nope"), "'Nope' is unknown"),
        (("resample", "a.json", "--steps", 0), "--steps"),
        (("resample", "missing.json", "--steps", 3), "missing.json"),
        (("resample", "dit.json", "--steps", 3), "dit.json: the file holds a dit_schedule"),
        (("transfer", "a.json", "--image-generator", "FluxImageGenerator"), "expected full_attn"),
        (("transfer", "a.json", *SIGMA, "--height", 0), "--height"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(run, arguments: tuple[object, ...], told: str) -> None:  # type: ignore[no-untyped-def]
    found().save("a.json")
    Path("dit.json").write_text('{"dit_schedule": {}}')
    Path("utf16.txt").write_text("1010", encoding="utf-16")
    Path("folder").mkdir()
    code, out, err = run(*arguments, "-o", "out.json")
    last = err.rstrip("\n").splitlines()[-1]
    assert (code, out) == (2, "")
    assert last.startswith("ecad: ")
    assert told in last
    assert not Path("out.json").exists()
