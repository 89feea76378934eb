"""The command line as a whole: what it lists, how soon it answers, what a pipe gets."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
import torch
import typer
from PIL import Image

from ecad._version import __version__
from ecad.cli import COMMANDS, app
from ecad.prompts import Prompt
from ecad.prompts.embeds import PromptEmbeds
from ecad.prompts.index import Entry
from ecad.prompts.store import write_store
from ecad.schedules import heuristics, pixart_sites

Run = Callable[..., tuple[int, str, str]]
HOMES = {name: home for group in COMMANDS.values() for name, home in group.items()}


def test_help_groups_every_command_and_each_has_help(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    for group, homes in COMMANDS.items():
        listed = out.split(f"{group}:\n")[1].split("\n\n")[0]
        assert all(f"  {name} " in listed for name in homes)
    group = typer.main.get_command(app)
    for name in HOMES:
        command = group.get_command(None, name)  # type: ignore[attr-defined]
        assert command.name == name
        assert command.help


@pytest.mark.parametrize("name", HOMES)
def test_each_command_is_where_the_table_says(name: str) -> None:
    home = HOMES[name]
    assert callable(getattr(importlib.import_module(home.module), home.name))
    assert home.help.endswith(".")


# What a user gets wrong most often: each must be told before torch, seconds of work, is imported.
REFUSALS = {
    "no such command": ["nope"],
    "a flag that is none": ["infer", "--nope"],
    "a number out of range": ["infer", "EmojiImageGenerator", "--prompt", "x", "--steps", "0"],
    "a number that is none": ["infer", "EmojiImageGenerator", "--prompt", "x", "--guidance-scale", "nan"],
    "an infinite number": ["optimize", "-o", "x", "--generations", "1", "--max-minutes", "inf"],
    "a count that takes all memory": [
        "infer",
        "EmojiImageGenerator",
        "--prompt",
        "x",
        "--num-images-per-prompt",
        "1" * 20,
    ],
    "a size that takes all memory": ["infer", "EmojiImageGenerator", "--prompt", "x", "--height", "1" * 20],
    "a seed that is too large": ["infer", "EmojiImageGenerator", "--prompt", "x", "--start-seed", str(2**64)],
    "a seed that is too small": ["infer", "EmojiImageGenerator", "--prompt", "x", "--start-seed", str(-(2**63) - 1)],
    "no such quality": ["optimize", "-o", "x", "--generations", "1", "--quality", "beauty"],
    "no such second quality": ["optimize", "-o", "x", "--generations", "1", "--second-quality", "beauty"],
    "no such scorer": ["score", "--benchmark-prompts", "no.txt", "--image-dir", "no", "--scorer", "beauty"],
    "a search's seed": ["optimize", "-o", "x", "--generations", "1", "--seed", "-1"],
    "no such mode": ["optimize", "-o", "x", "--mode", "slow"],
    "no such device": ["infer", "EmojiImageGenerator", "--prompt", "x", "--device", "nose"],
    "no such accounting": ["macs", "-i", "no", "--image-generator", "EmojiImageGenerator", "--accounting", "half"],
    "nothing to compare with": ["score", "--benchmark-prompts", "no.txt", "--image-dir", "no", "--scorer", "psnr"],
    "no such generator": ["infer", "Nope", "--prompt", "x"],
    "a search of no such generator": ["optimize", "-o", "x", "--image-generator", "Nope", "--generations", "1"],
    "a schedule for no such generator": ["schedule", "none", "-o", "x.json", "--image-generator", "Nope"],
    "weights beside a pipeline": ["infer", "org/model", "--prompt", "x", "--weights", "y"],
    "no such schedule": ["infer", "EmojiImageGenerator", "--prompt", "x", "--schedule", "no.json"],
    "no such schedule to show": ["schedule", "show", "no.json"],
    "no such schedules": ["macs", "-i", "no", "--image-generator", "EmojiImageGenerator"],
    "no such embeddings": ["infer", "EmojiImageGenerator", "--input-embeddings", "no"],
    "no such prompts": ["embed", "-f", "no.txt", "-o", "x", "--image-generator", "EmojiImageGenerator"],
    "no such prompts of MJHQ": ["embed-mjhq", "-f", "no.json", "-o", "x", "--image-generator", "EmojiImageGenerator"],
    "no such images": ["fid", "--gen-dir", "no", "--ref-dir", "no"],
    "no such prompts of images": ["score", "--benchmark-prompts", "no.txt", "--image-dir", "no"],
    "no such study": ["report", "no"],
    "nothing to fetch": ["fetch", "no"],
}
ANSWERS = {
    "help": ["--help"],
    "version": ["--version"],
    "models": ["models"],
    "a command's help": ["generate", "--help"],
}


ASK = """
import contextlib, io, json, sys
sys.modules["torch"] = None  # whoever imports it fails
from ecad.cli import main
ended = {}
for what, arguments in json.load(sys.stdin).items():
    sys.argv = ["ecad", *arguments]
    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(io.StringIO()):
        try:
            main()
        except SystemExit as end:
            ended[what] = [end.code, said.getvalue()]
json.dump(ended, sys.stdout)
"""


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list]:
    """What each command ends with and says, in one process without torch; its folder stays empty."""
    folder = tmp_path_factory.mktemp("empty")
    asked = json.dumps(REFUSALS | ANSWERS)
    found = subprocess.run([sys.executable, "-c", ASK], input=asked, capture_output=True, text=True, cwd=folder)
    assert found.returncode == 0, found.stderr
    assert list(folder.iterdir()) == []
    return json.loads(found.stdout)


@pytest.mark.parametrize("what", [*REFUSALS, *ANSWERS])
def test_refusals_and_answers_do_not_wait_for_torch(ended: dict[str, list], what: str) -> None:
    code, said = ended[what]
    assert code == (0 if what in ANSWERS else 2), said
    if what in REFUSALS:
        assert said.startswith("ecad: ")
        assert said.count("\n") == 1


GENERATOR = ["--image-generator", "EmojiImageGenerator"]
FIRST = {
    "infer": ["infer", "EmojiImageGenerator", "--prompt", "x"],
    "embed": ["embed", *GENERATOR, "-f", "p.txt", "-o", "new"],
    "embed-coco": ["embed-coco", *GENERATOR, "-f", "p.txt", "-o", "new"],
    "embed-mjhq": ["embed-mjhq", *GENERATOR, "-f", "p.json", "-o", "new"],
    "embed-parti": ["embed-parti", *GENERATOR, "-f", "p.tsv", "-o", "new"],
    "generate": [
        "generate",
        "--image-generator",
        "EmojiImageGenerator",
        "-i",
        "stored",
        "-d",
        "none.json",
        "-o",
        "new",
    ],
    "latency": ["latency", *GENERATOR, "-i", "stored", "-d", "none.json"],
    "macs": ["macs", *GENERATOR, "-i", "none.json"],
    "optimize": ["optimize", "-o", "new", "--generations", "1"],
    "calibrate": ["calibrate", "-o", "new.json"],
    "demo": ["demo", "-o", "new"],
    "report": ["report", "images"],
    "score": ["score", "--benchmark-prompts", "p.txt", "--image-dir", "images", "--scorer", "judge"],
    "clip": ["clip", "--prompts-path", "p.txt", "-i", "images", "--clip-model", "judge"],
    "fid": ["fid", "--gen-dir", "images", "--ref-dir", "images", "--model-name", "judge"],
    "schedule of any pipeline": ["schedule", "none", "-o", "new.json", "--image-generator", "stored"],
}
NAMES = {"report": "images", "schedule of any pipeline": "stored"} | dict.fromkeys(("score", "clip", "fid"), "judge")


SAY = """
import contextlib, io, json, sys
sys.modules["torch"] = None  # whoever imports it fails
from ecad.cli import main
said = {}
for what, arguments in json.load(sys.stdin).items():
    sys.argv = ["ecad", *arguments]
    with contextlib.redirect_stderr(io.StringIO()) as stream, contextlib.suppress(BaseException):
        main()
    said[what] = stream.getvalue()
json.dump(said, sys.stdout)
"""


@pytest.fixture(scope="module")
def said_first(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each command says before the import of torch ends it."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "p.txt").write_text("a fox in the snow\n")
    (folder / "p.tsv").write_text("Prompt\tCategory\na fox\tanimals\n")
    (folder / "p.json").write_text('{"a": {"prompt": "a fox", "category": "animals"}}')
    (folder / "images").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "images/0000.png")
    heuristics.none(pixart_sites(12), 20).save(folder / "none.json")
    embeds = PromptEmbeds((torch.zeros(2, 4),), negative=torch.zeros(2, 4))
    list(write_store(folder / "stored", [Entry("0000", Prompt("0000", "a fox"))], lambda _: embeds, {}, 1))
    asked = json.dumps(FIRST)
    found = subprocess.run([sys.executable, "-c", SAY], input=asked, capture_output=True, text=True, cwd=folder)
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


@pytest.mark.parametrize("what", FIRST)
def test_the_first_line_does_not_wait_for_torch(said_first: dict[str, str], what: str) -> None:
    assert said_first[what].startswith(f"loading {NAMES.get(what, 'EmojiImageGenerator')}\n")


def test_the_version_is_the_packages(run: Run) -> None:
    assert run("--version") == (0, f"ecad {__version__}\n", "")


def test_a_refusal_is_one_line(run: Run) -> None:
    code, out, err = run("infer", "EmojiImageGenerator", "--prompt", "x", "--start-seed", 2**64)
    assert (code, out) == (2, "")
    assert err == f"ecad: seed {2**64} is too large for PyTorch: expected -2**63 to 2**64 - 1\n"


def test_shell_completion_lists_commands_and_flags() -> None:
    def completed(words: str, count: int) -> list[str]:
        environment = {"_ECAD_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(count)}
        command = [sys.executable, "-c", "import sys; sys.argv = ['ecad']; from ecad.cli import main; main()"]
        return subprocess.run(command, env=environment, capture_output=True, text=True).stdout.split()

    assert completed("ecad inf", 1) == ["infer"]
    assert "--schedule" in completed("ecad infer --sch", 2)


def test_progress_into_a_pipe_is_whole_lines(capsys: pytest.CaptureFixture[str]) -> None:
    from ecad.commands.progress import search_progress
    from ecad.genetic.run import Progress

    with search_progress(status=lambda: " ".join(["worker"] * 40)) as show:
        assert capsys.readouterr().err == "the search begins\n"
        for generation, candidates in ((0, 1), (0, 2), (1, 3)):
            show(Progress(generation, candidates, 1, 2.5, 4 * candidates, 8.0, 30.0))
        # A generation is told as soon as the next one shows a candidate.
        first = capsys.readouterr().err
    assert first.startswith("generation 0: 2 candidates (0.2/s), 8 images, front 1, hypervolume 2.5, worker worker")
    assert first.endswith(" worker, 8 s, 30 s left\n")
    assert first.count("\n") == 1
    assert capsys.readouterr().err.startswith("generation 1: 3 candidates")


def test_work_into_a_pipe_shows_that_it_lives(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ecad.utils import console

    monkeypatch.setattr(console, "HEARTBEAT", 0.001)
    said = ""
    for item in console.bar([1, 2], "scoring"):
        for _ in range(10_000 if item == 1 else 0):
            if said := capsys.readouterr().err:
                break
            time.sleep(0.001)
    assert said.startswith("scoring: 0 of 2, ")
    assert capsys.readouterr().err.splitlines()[-1].startswith("scoring: 2 of 2, ")


def test_what_goes_into_a_pipe_is_not_wrapped(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.table import Table

    from ecad.utils.console import console, stderr

    long = " ".join(["word"] * 100)
    console.print(long)
    stderr.print(long)
    table = Table("a", "b")
    table.add_row(long, long)
    console.print(table)
    captured = capsys.readouterr()
    assert captured.err == f"{long}\n"
    assert captured.out.startswith(f"{long}\n")
    assert sum("word" in line for line in captured.out.splitlines()) == 2
