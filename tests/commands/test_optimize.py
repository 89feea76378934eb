"""`ecad optimize` splits one file of prompts: search, validation, held-out."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import ecad
from ecad import builtin
from ecad.cli import main
from ecad.genetic import Study

FOUR_STEPS = {"pipeline": str(builtin.FLUX_FOLDER), "steps": 4, "height": 64, "width": 64}


def test_three_disjoint_sets_of_prompts_search_select_and_judge(monkeypatch, capsys, tmp_path) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    Path("model.json").write_text(json.dumps(FOUR_STEPS))
    Path("prompts.txt").write_text("\n".join(builtin.prompts("search")[:11]) + "\n")
    flags = ["--image-generator", "model.json", "--prompt-file", "prompts.txt", "--num-prompts", "1", "--json"]
    monkeypatch.setattr(sys, "argv", ["ecad", "optimize", "-o", "study", "--generations", "2", *flags])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    rows, front = json.loads(capsys.readouterr().out)["front"], ecad.Front.load("study/front.json")
    with_scores = Study.open("study")
    searched = {item.prompt.text for item in with_scores.items}
    held_out = {item.prompt.text for item in with_scores.held_out}
    assert searched == set(builtin.prompts("search")[:1])
    assert held_out == set(builtin.prompts("search")[9:11])
    assert dict(front.provenance)["validation_prompts"] == 8
    assert len(rows) == len(front.points) == len(list(Path("study/front").iterdir()))
    qualities = [point.quality for point in front.points]
    assert qualities == sorted(set(qualities))
    assert any(schedule.output_weights is not None for schedule in front.schedules)
    assert {name for point in front.points for name in point.held_out} == {"psnr"}
