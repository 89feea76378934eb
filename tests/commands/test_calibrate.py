"""`ecad calibrate` as a user types it, on a built-in model of four steps."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import ecad
from ecad.cli import main
from ecad.schedules.provenance import provenance_of

PROMPTS = ["a 3d tulip on a pink background", "a google bear on a blue background", "a red fox", "a blue fox"]


@pytest.fixture
def run(monkeypatch, capsys, tmp_path, short_flux, measured_once):
    """Run `ecad calibrate ...` in a folder with a model of four steps and four prompts; gives code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    Path("model.json").write_text(json.dumps({"pipeline": str(short_flux), "steps": 4, "height": 64, "width": 64}))
    Path("prompts.txt").write_text("\n".join(PROMPTS) + "\n")

    def calibrate(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ecad", "calibrate", "--image-generator", "model.json", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return calibrate


def test_it_writes_a_front_with_held_out_scores_and_provenance_after_a_dry_run_that_writes_nothing(run):
    arguments = ("--prompt-file", "prompts.txt", "--num-prompts", 2, "--held-out", 2, "--json")
    planned = json.loads(run(*arguments, "--dry-run")[1])
    assert planned["seconds"] > 0
    assert not Path("front.json").exists()
    code, out, _ = run(*arguments)
    assert code == 0
    assert json.loads(out)["images"] <= planned["images"]
    found, front = json.loads(out), ecad.Front.load("front.json")
    assert [row["name"] for row in found["front"]] == [schedule.name for schedule in front.schedules]
    assert (found["fitting_prompts"], found["validation_prompts"], found["held_out_prompts"]) == (1, 1, 2)
    schedule = front.pick(speedup=2)
    provenance = provenance_of(schedule.attributes)
    assert provenance is not None
    assert provenance.held_out_images == 2
    assert provenance.held_out["psnr"].low <= provenance.held_out["psnr"].mean
    assert schedule.metrics["total_macs"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "model.json needs prompts: give a file of them with --prompt-file"),
        (("--prompt-file", "prompts.txt"), "prompts.txt: expected at least 8 prompts (--num-prompts), found 4"),
        (("--prompt-file", "none.txt"), "none.txt"),
    ],
)
def test_a_mistake_is_one_line(run, arguments, message):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not Path("front.json").exists()
