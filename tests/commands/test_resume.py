"""A study remembers the flags that it began with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import pytest
import typer

from ecad.commands.resume import recall, remember
from ecad.errors import EcadError
from ecad.genetic.study.layout import FLAGS

CALLS: list[dict] = []


def job(
    context: typer.Context,
    output_dir: Path,
    resume: Annotated[bool, typer.Option("--resume")] = False,
    prompt_file: Path | None = None,
    seed: int = 0,
    minutes: float | None = None,
) -> None:
    if resume:
        context.invoke(job, context, **recall(context, output_dir))
        return
    remember(context, output_dir)
    CALLS.append({"prompt_file": prompt_file, "seed": seed, "minutes": minutes})


@pytest.fixture
def run(tmp_path):
    app = typer.Typer()
    app.command()(job)
    CALLS.clear()

    def run(*flags):
        typer.main.get_command(app).main([str(tmp_path), *map(str, flags)], standalone_mode=False)
        return CALLS[-1]

    return run


def test_what_is_not_given_again_is_as_it_was(run):
    first = run("--prompt-file", "a.txt", "--seed", 3)
    assert run("--resume") == first == {"prompt_file": Path("a.txt"), "seed": 3, "minutes": None}


def test_what_is_given_again_counts_and_is_kept(run):
    run("--seed", 3, "--minutes", 1.5)
    assert run("--resume", "--minutes", 5) == {"prompt_file": None, "seed": 3, "minutes": 5.0}
    assert run("--resume") == {"prompt_file": None, "seed": 3, "minutes": 5.0}
    assert run("--resume", "--seed", 0)["seed"] == 0


@pytest.mark.parametrize("content", [None, "", "[]", "{"])
def test_without_a_study_there_is_nothing_to_resume(run, tmp_path, content):
    if content is not None:
        (tmp_path / FLAGS).write_text(content)
    with pytest.raises(EcadError, match="--resume needs a study with its flags"):
        run("--resume")
    assert not CALLS


def test_flags_of_one_run_are_not_kept(run, tmp_path):
    run()
    assert set(json.loads((tmp_path / FLAGS).read_text())) == {"prompt_file", "seed", "minutes"}


@pytest.mark.parametrize(
    ("flag", "value"),
    [("seed", "x"), ("seed", None), ("seed", [1]), ("minutes", "x"), ("seed", float("inf")), ("prompt_file", {"a": 1})],
)
def test_a_kept_flag_that_is_no_value_of_it_is_refused(run, tmp_path, flag, value):
    run()
    CALLS.clear()
    kept = json.loads((tmp_path / FLAGS).read_text())
    (tmp_path / FLAGS).write_text(json.dumps({**kept, flag: value}))
    with pytest.raises(EcadError, match=f"flags.json: {flag}: not a value of the flag: "):
        run("--resume")
    assert not CALLS
