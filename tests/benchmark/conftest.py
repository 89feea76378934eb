"""Commands as a user types them: scripts by path, from a folder of one's own."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Script = Callable[..., tuple[int, str, str]]
SCRIPTS = Path(__file__).parents[2] / "ecad" / "benchmark"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Script:
    """Run `python ecad/benchmark/NAME.py ...` in an empty folder; gives exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    # Nothing of the user's own cache or weights may answer.
    for name in ("XDG_CACHE_HOME", "TORCH_HOME", "HF_HOME"):
        monkeypatch.setenv(name, str(tmp_path / ".cache"))

    def run(name: str, *arguments: object) -> tuple[int, str, str]:
        path = SCRIPTS / f"{name}.py"
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(path), run_name="__main__")
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def fails(script: Script) -> Callable[..., str]:
    """Run a script that must end with one line on stderr and exit code 2; gives the line."""

    def run(name: str, *arguments: object) -> str:
        code, out, err = script(name, *arguments)
        last = err.rstrip("\n").splitlines()[-1]
        assert (code, out) == (2, "")
        assert last.startswith("ecad: ")
        assert "Traceback" not in err
        return last

    return run
