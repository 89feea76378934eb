"""Rules of CONTRIBUTING.md that no linter checks."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("ecad", "tools", "benchmarks", "tests", "examples")
FILES = sorted(path.relative_to(ROOT).as_posix() for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
# A module of at least this many lines of the package has a test file of its own.
LONG = 120
# No file is longer, and no function outside of the tests.
MOST_LINES, MOST_LINES_OF_A_FUNCTION = 350, 60
# Module or folder -> the test file that tests it instead, and why.
TESTED_ELSEWHERE = {
    "benchmark/generate_images": ("benchmark/test_generate", "the commands embed and generate are used together"),
    "calibration/of_generator": ("commands/test_calibrate", "what the command calls"),
    "commands/search_options": ("commands/test_optimize", "the options of optimize"),
    "cost/table": ("cost/test_macs", "its prices are counted MACs"),
    "execution/local": ("execution/test_executor", "workers do nothing without an executor"),
    "genetic/asynchronous": ("genetic/evaluation/test_workers", "it needs workers"),
    "genetic/illustrate": ("commands/test_report", "what the command calls"),
    "quality/features": ("quality/test_fid", "features are compared by their distances"),
    "runtime": ("runtime/test_hazards", "a forward takes its way through most modules: tests are by behaviour"),
    "schedules/json_values": ("schedules/test_format_refusals", "the values of schedule files"),
    "sites/families": ("runtime/test_families", "every family runs in its pipeline"),
}
# Test file in a folder -> what it tests, where that is no module or folder of this name.
OTHER_SUBJECTS = {
    "benchmark/test_generate": "the commands embed and generate",
    "benchmark/test_walkthrough": "the commands of docs/benchmark.md",
    "benchmarks/test_video_rivals": "every rival on the video model",
    "commands/test_described_pipelines": "every command on pipelines that a description file is for",
    "genetic/test_real_model": "searches of a real pipeline",
    "quality/test_judge": "the built-in weights of quality/clip.py",
    "report/test_browser": "the pages in a browser",
    "schedules/test_format_random": "schedules/format.py with random documents",
    "schedules/test_format_refusals": "schedules/format.py with malformed documents",
}
# Sections of Google's style that mkdocs renders.
HEADINGS = {"Args", "Attributes", "Raises", "Returns", "Yields"}
# A line with nothing but one to three words and a colon, above an indented one.
HEADING = re.compile(r"^( *)([A-Z]\w*(?: \w+){0,2}):\n\1 +\S", re.MULTILINE)
# A paragraph that should be a section.
SENTENCE = re.compile(r"\n\n((?:Raises|Returns|Yields) .*)")


def docstrings(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(what it describes, text) of each docstring."""
    for node in ast.walk(tree):
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        if isinstance(node, kinds) and (text := ast.get_docstring(node)):
            yield getattr(node, "name", "module"), text


def test_docstrings_have_the_headings_of_googles_style() -> None:
    wrong = [
        (path, name, found)
        for path in FILES
        for name, text in docstrings(ast.parse((ROOT / path).read_text(encoding="utf-8")))
        for found in [*(heading[2] for heading in HEADING.finditer(text)), *SENTENCE.findall(text)]
        if found not in HEADINGS
    ]
    assert not wrong


def test_files_and_functions_are_short() -> None:
    long = []
    for path in FILES:
        text = (ROOT / path).read_text(encoding="utf-8")
        sizes = {
            node.name: (node.end_lineno or node.lineno) - node.lineno + 1
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        if not path.startswith("tests/"):
            long += [(path, name, lines) for name, lines in sizes.items() if lines > MOST_LINES_OF_A_FUNCTION]
        if (lines := len(text.splitlines())) > MOST_LINES:
            long.append((path, "the file", lines))
    assert not long


def test_every_long_module_has_a_test_file() -> None:
    untested = [
        module
        for module, lines in modules().items()
        if lines >= LONG and not has_test(module) and not listed(module, TESTED_ELSEWHERE)
    ]
    assert not untested
    assert all((ROOT / "tests" / f"{test}.py").is_file() for test, _ in TESTED_ELSEWHERE.values())


def test_every_test_file_has_a_subject() -> None:
    known = {f"tests/{test}.py" for test in OTHER_SUBJECTS}
    assert known <= set(FILES)
    tests = [Path(path) for path in FILES if re.match(r"tests/.+/test_\w+\.py", path)]
    strays = [str(test) for test in tests if str(test) not in known and not has_subject(test.relative_to("tests"))]
    # Those of the runtime are by behaviour.
    assert [stray for stray in strays if not stray.startswith("tests/runtime/")] == []


def modules() -> dict[str, int]:
    """Module of the package, such as `cost/table` -> its number of lines."""
    return {
        path.removeprefix("ecad/").removesuffix(".py"): len((ROOT / path).read_text(encoding="utf-8").splitlines())
        for path in FILES
        if path.startswith("ecad/")
    }


def has_test(module: str) -> bool:
    """Whether a module, or a folder that it is in, has a test file of its name."""
    names = [Path(module), *Path(module).parents[:-1]]
    return any((ROOT / "tests" / name.parent / f"test_{name.name}.py").is_file() for name in names)


def has_subject(test: Path) -> bool:
    """Whether `tests/folder/test_name.py` has a module or folder `name` in `ecad/folder`, or anywhere in `folder`."""
    name = test.stem.removeprefix("test_")
    inside = ROOT / "ecad" / test.parent / name
    return (
        inside.is_dir()
        or inside.with_suffix(".py").is_file()
        or bool([*(ROOT / test.parent).rglob(f"{name}.py"), *(ROOT / test.parent).glob(name)])
    )


def listed(module: str, among: Iterable[str]) -> bool:
    """Whether a module or a folder that it is in is listed."""
    return any(module == name or module.startswith(f"{name}/") for name in among)


# Phrase -> the field's word. In documents, and in the texts of the package: docstrings, help, messages.
PHRASES = {
    r"likeness": "similarity",
    r"beaten by": "dominated by",
    r"makes? room": "is replaced",
    r"of another mind": "disagrees",
    r"held against": "compared with",
    r"so many": "a number, or N",
    r"leaves? no trace": "restores",
    r"beyond doubt": "significantly",
    r"nobody is above": "no method is better",
    r"rather too": "an upper bound",
}


def test_texts_use_the_words_of_the_field() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    texts = [(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in pages]
    for path in (path for path in FILES if path.startswith("ecad/")):
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        strings = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
        texts += [(path, text) for text in strings if isinstance(text, str)]
    found = [
        (path, phrase[0], f"write: {instead}")
        for path, text in texts
        for pattern, instead in PHRASES.items()
        for phrase in re.finditer(rf"\b{pattern}\b", text, re.IGNORECASE)
    ]
    assert not found
