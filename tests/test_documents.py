"""What the documents say: their links lead somewhere, their commands exist, and the code of the guides runs."""

from __future__ import annotations

import ast
import functools
import importlib
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
from checkout import copy_checkout, shell_in
from few_steps import set_steps

from ecad.cli import app
from ecad.schedules import CacheSchedule

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md"))
)
FENCE = re.compile(r"^( *)```([\w-]*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
SHELL = ("", "sh")
# The environment of the tests is installed.
INSTALLING = ("python3 -m venv ", ".venv/bin/pip ", "source ")


class Block(NamedTuple):
    """A fenced block of a page."""

    line: int
    language: str
    text: str


@functools.cache
def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> Iterator[Block]:
    text = read(page)
    for found in FENCE.finditer(text):
        yield Block(text[: found.start()].count("\n") + 1, found[2], found[3])


def lines(text: str) -> list[str]:
    """The lines of a shell block; one may go on after a backslash."""
    return text.replace("\\\n", " ").splitlines()


def commands(text: str) -> Iterator[list[str]]:
    """The words of each `ecad ...` of a block."""
    for line in lines(text):
        words = shlex.split(line, comments=True) if line.startswith("ecad ") else []
        if words:
            yield words[1:]


@functools.cache
def anchors(page: str) -> set[str]:
    """What GitHub and the site make of a page's titles."""
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", read(page)), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", LINK.sub("", title).lower()) for title in titles)
    return {title.strip().replace(" ", "-") for title in plain}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    prose = CODE.sub("", FENCE.sub("", read(page)))
    for link in LINK.findall(prose):
        if re.match(r"\w+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = (ROOT / page).parent / place if place else ROOT / page
        assert target.exists(), f"{page}: {link}"
        if anchor:
            assert anchor in anchors(target.resolve().relative_to(ROOT).as_posix()), f"{page}: {link}"


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist_with_their_flags(page: str) -> None:
    for block in blocks(page):
        for words in commands(block.text) if block.language in SHELL else ():
            parse(words, f"{page}:{block.line}: ecad {' '.join(words)}")
    for span in CODE.findall(FENCE.sub("", read(page))):
        for words in commands(span):
            if words and re.fullmatch(r"[a-z][\w-]*", words[0]):  # not `ecad embed*`
                parse([*words, "..."], f"{page}: `{span}`")


@pytest.mark.parametrize("page", PAGES)
def test_targets_and_scripts_exist(page: str) -> None:
    made = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    shell = [block.text for block in blocks(page) if block.language in SHELL]
    for line in "\n".join([*shell, *CODE.findall(FENCE.sub("", read(page)))]).splitlines():
        words = line.split() or [""]
        if words[0] == "make":
            assert made.issuperset(word for word in words[1:2] if "=" not in word), f"{page}: {line}"
        elif words[0] == "python" and any(word.endswith(".py") for word in words[1:2]):
            assert (ROOT / words[1]).is_file(), f"{page}: {line}"


@functools.cache
def command_line() -> Any:
    return typer.main.get_command(app)


def parse(words: list[str], where: str) -> None:
    """Let the command line read a command, but not do it; an ellipsis stands for what a page leaves out."""
    command: Any = command_line()
    while hasattr(command, "get_command"):
        assert words, f"{where}: which subcommand?"
        command, words = command.get_command(None, words[0]), words[1:]
        assert command is not None, where
    if "-h" in words or "--help" in words:
        return
    try:
        command.make_context("ecad", [word for word in words if word != "..."])
    except Exception as error:
        if "..." not in words or not re.match(r"Missing|.* requires an argument", str(error)):
            pytest.fail(f"{where}: {error}")


@pytest.mark.parametrize("page", PAGES)
def test_python_is_python_and_json_is_json(page: str) -> None:
    for block in blocks(page):
        if block.language == "python":
            ast.parse(block.text, filename=f"{page}:{block.line}")
        elif block.language == "json":
            for value in [block.text] if block.text[1] == "\n" else block.text.splitlines():
                json.loads(value)


def test_contributing_quotes_the_order_of_packages() -> None:
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")  # pytest brings tomli
    settings = toml.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    # import-linter lists the highest first.
    expected = [layer.replace(" | ", ", ") for layer in reversed(layers)]
    (quoted,) = (block.text.splitlines() for block in blocks("CONTRIBUTING.md") if block.language == "text")
    assert quoted == expected


def test_the_schedule_that_is_shown_is_one() -> None:
    first = next(block for block in blocks("docs/formats.md") if block.language == "json")
    assert CacheSchedule.from_json(json.loads(first.text)).recompute.tolist() == [[True] * 3, [False] * 3]


@pytest.mark.parametrize("page", [page.removeprefix("docs/") for page in PAGES if page.startswith("docs/")])
def test_the_site_has_every_page(page: str) -> None:
    assert re.search(rf"(- |: ){re.escape(page)}$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_site_loads_nothing_from_elsewhere() -> None:
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "font: false" in settings
    assert "://" not in settings


@pytest.fixture
def follow(run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable:
    """Do what a page says, block after block, in an empty folder; gives all that was printed by commands.

    Of the shell's lines only those are done in which the pattern `shell` is found: the others may need the hub.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def followed(page: str, shell: str) -> str:
        names: dict[str, Any] = {"__name__": page}
        monkeypatch.setitem(sys.modules, page, type(sys)(page))
        printed = []
        for block in blocks(page):
            if block.language == "python":
                exec(compile(block.text, f"{page}:{block.line}", "exec"), names)
            elif block.language == "sh":
                printed += [shell_line(line) for line in lines(block.text) if re.search(shell, line)]
        return "".join(printed)

    def shell_line(line: str) -> str:
        if not line.startswith("ecad "):
            if not line.startswith(INSTALLING):
                subprocess.run(line, shell=True, check=True)
            return ""
        code, out, err = run(*shlex.split(line)[1:])
        assert code == 0, (line, err)
        return out

    return followed


@pytest.mark.filterwarnings("ignore::ecad.EcadWarning")
def test_readme_and_tutorial_do_what_they_say_in_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every line in a real shell, as it is written; the model takes 6 steps instead of 20, to be done sooner."""
    checkout = tmp_path / "ecad"
    copy_checkout(checkout)
    before = {path for path in checkout.rglob("*") if "__pycache__" not in path.parts}
    model = checkout / "ecad" / "cost" / "architectures" / "emoji.json"
    model.write_text(json.dumps(json.loads(model.read_text()) | {"steps": 6}))
    set_steps(monkeypatch, 6)  # for the page's Python, which runs here
    monkeypatch.chdir(checkout)
    (sixty_seconds,) = (block for block in blocks("README.md") if block.language == "python")
    exec(compile(sixty_seconds.text, "README.md", "exec"), {})
    Path("crab.png").unlink()
    names: dict[str, Any] = {}
    printed = ""
    with shell_in(checkout) as shell:
        for block in blocks("docs/tutorial.md"):
            monkeypatch.chdir(shell.folder)
            if block.language == "python":
                exec(compile(block.text, f"docs/tutorial.md:{block.line}", "exec"), names)
            elif block.language == "sh" and not block.text.startswith(INSTALLING):
                printed += shell.do(block.text)
    for line in ("schedules in study/front", "6 images under 3 schedules in images", "page: images/report.html"):
        assert line in printed
        assert line in read("docs/tutorial.md")
    for file in ("study/report.html", "schedules/found.json", "owl.png", "found_30.json", "owl_30.png"):
        assert Path(file).stat().st_size > 1000
    after = {path for path in checkout.rglob("*") if "__pycache__" not in path.parts}
    assert {path.relative_to(checkout).parts[0] for path in after - before} == {"tutorial"}


def test_your_own_model_runs(follow: Callable) -> None:
    printed = follow("docs/your-own-model.md", shell=r"my-study|my-model\.json")
    for line in ("schedules in my-study/front", "page: my-study/report.html", "1 images in outputs/images"):
        assert line in printed
    assert Path("best.json").exists()


def test_messages_are_as_the_page_says(run: Callable[..., tuple[int, str, str]]) -> None:
    (page,) = (block.text for block in blocks("docs/messages.md") if block.language == "console")
    shown, said = page.splitlines(), []
    mistakes = 0
    for line in (line.removeprefix("$ ") for line in shown if line.startswith("$ ")):
        said.append(f"$ {line}")
        if line.startswith("ecad "):
            code, out, err = run(*shlex.split(line)[1:])
            said += out.splitlines() if code == 0 else err.splitlines()[-1:]
            mistakes += code == 2
        else:
            subprocess.run(line, shell=True, check=True)
    assert said == shown
    assert mistakes >= 12
