"""`ecad optimize` splits one file of prompts: search, validation, held-out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import ecad
from ecad import builtin
from ecad.cli import main
from ecad.genetic import Study
from ecad.genetic import run as search

Run = Callable[..., tuple[int, str, str]]
# Each command loads and measures its pipeline.
pytestmark = pytest.mark.usefixtures("measured_once")
FOUR_STEPS = {"steps": 4, "height": 64, "width": 64}


def test_three_disjoint_sets_of_prompts_search_select_and_judge(monkeypatch, capsys, tmp_path, short_flux) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ecad.commands.search_options.VALIDATION_PROMPTS", 2)
    Path("model.json").write_text(json.dumps({"pipeline": str(short_flux), **FOUR_STEPS}))
    Path("prompts.txt").write_text("\n".join(builtin.prompts("search")[:4]) + "\n")
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
    assert held_out == set(builtin.prompts("search")[3:4])
    assert dict(front.provenance)["validation_prompts"] == 2
    assert len(rows) == len(front.points) == len(list(Path("study/front").iterdir()))
    qualities = [point.quality for point in front.points]
    assert qualities == sorted(set(qualities))
    assert any(schedule.output_weights is not None for schedule in front.schedules)
    assert {name for point in front.points for name in point.held_out} == {"psnr"}


@pytest.fixture
def four_steps(run: Run, short_flux: Path) -> tuple[str, ...]:
    """Flags of a search of few steps: one prompt searches, two validate, one is held out."""
    Path("model.json").write_text(json.dumps({"pipeline": str(short_flux), **FOUR_STEPS}))
    Path("prompts.txt").write_text("\n".join(builtin.prompts("search")[:3]) + "\n")
    Path("held_out.txt").write_text(builtin.prompts("held_out")[0] + "\n")
    files = ("--prompt-file", "prompts.txt", "--held-out-file", "held_out.txt")
    return ("--image-generator", "model.json", *files, "--population-size", "2")


def test_fewer_steps_compete_on_one_front(run: Run, four_steps: tuple[str, ...]) -> None:
    # Extrapolated from two steps by fitted weights, four steps are better than two without reuse.
    shared = (*four_steps, "--num-prompts", "1", "--no-forecast")
    flags = ("optimize", "-o", "study", *shared, "--steps", "2,4", "--generations", "2")
    code, out, said = run(*flags, "--json")
    assert code == 0, said
    found, front = json.loads(out), ecad.Front.load("study/front.json")
    assert found["studies"] == ["study/steps_002", "study/steps_004"]
    studies = {steps: Study.open(f"study/steps_00{steps}") for steps in (2, 4)}
    assert found["uncached_macs"] == studies[4].uncached_cost == 2 * studies[2].uncached_cost
    assert {row["rows"] for row in found["front"]} == {2, 4}
    assert [schedule.num_steps for schedule in front.schedules] == [row["rows"] for row in found["front"]]
    assert [point.cost for point in front.points] == [row["macs"] / found["uncached_macs"] for row in found["front"]]
    # Two steps without reuse are compared with four, not with themselves.
    [whole] = [one for one in studies[2].candidates if one.recompute.all()]
    assert whole.quality < 60
    assert {study.settings["evaluator"]["reference_steps"] for study in studies.values()} == {4}
    assert all(study.held_out for study in studies.values() if any(r["rows"] == 2 for r in found["front"]))
    # Again, and nothing is made again.
    assert json.loads(run(*flags, "--json")[1]) == found


def test_images_are_divided_and_not_exceeded(run: Run, four_steps: tuple[str, ...]) -> None:
    code, out, said = run("optimize", "-o", "study", *four_steps, "--max-images", "30", "--json")
    assert code == 0, said
    study, front = Study.open("study"), ecad.Front.load("study/front.json")
    assert study.images <= 20
    assert len(study.items) == 1
    assert front.provenance["validation_prompts"] == 1
    assert len(study.held_out) == 1
    assert json.loads(out)["front"]


def test_an_interrupted_search_says_what_is_kept(
    run: Run, four_steps: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = iter([None, None, KeyboardInterrupt])

    def interrupted(self: search.Run, *arguments: object) -> None:
        if stop := next(complete):
            raise stop
        original(self, *arguments)  # type: ignore[arg-type]

    original = search.Run.complete
    monkeypatch.setattr(search.Run, "complete", interrupted)
    code, out, said = run("optimize", "-o", "study", *four_steps, "--generations", "1")
    assert (code, out) == (130, "")
    kept = "2 candidates (9 images) are kept; `ecad optimize -o study --resume` resumes it"
    assert said.splitlines()[-1] == f"ecad: interrupted: {kept}"
    assert "\ngeneration 0: 2 candidates" in said
    complete = iter([KeyboardInterrupt])
    said = run("optimize", "-o", "other", *four_steps, "--generations", "1")[2]
    assert said.endswith("ecad: interrupted: other: no candidate was complete; run the same command again\n")


def test_a_dry_run_says_what_it_would_take_and_leaves_nothing(run: Run, four_steps: tuple[str, ...]) -> None:
    flags = ("optimize", "-o", "study", *four_steps, "--num-prompts", "2", "--dry-run")
    code, out, said = run(*flags, "--generations", "3", "--json")
    assert code == 0, said
    found = json.loads(out)
    assert found["search_images"] == found["images_of_first_two_generations"] + 2 * 2
    assert found["minutes"] > 0
    assert found["kept_bytes_per_image"] > 0
    code, out, said = run(*flags)
    assert code == 0, said
    assert out.count("\n") == 3
    assert "until 3 generations in a row do not improve the front" in out
    assert sorted(path.name for path in Path().iterdir()) == ["held_out.txt", "model.json", "prompts.txt"]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--steps", "4,x"), "--steps: expected whole numbers from 2 to 10000 with commas between"),
        (("--steps", "1"), "--steps: expected whole numbers from 2 to 10000 with commas between"),
        (("--max-images", "2"), "--max-images 2 is too few to search and to select"),
        (("--log", "comet"), "tracker 'comet' is unknown"),
        (("--mode", "paper"), "the search has no end of its own"),
        (("--steps", "2,4", "--live"), "--live shows one search"),
    ],
)
def test_a_mistake_is_one_line(run: Run, four_steps: tuple[str, ...], flags: tuple[str, ...], told: str) -> None:
    code, out, said = run("optimize", "-o", "study", *four_steps, *flags)
    assert (code, out, said.count("\n")) == (2, "", 1)
    assert told in said
    assert not Path("study").exists()
