"""A fresh checkout of the repository, and a shell in which somebody follows its documents."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def copy_checkout(folder: Path) -> None:
    """Copy what `git clone` would bring, with the working tree's changes."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.split("\0")[:-1]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)


class Shell:
    """A bash in which lines are done as they are written; the folder that it is in is kept between calls.

    Args:
        folder: the checkout, whose `ecad` is the one that runs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._place = folder.with_name("place")
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        cache = str(folder.with_name("cache"))
        self._environment = {**os.environ, "PATH": path, "PYTHONPATH": str(folder), "XDG_CACHE_HOME": cache}

    def do(self, lines: str) -> str:
        """Do some lines, and give what they print; the first that fails ends the test."""
        script = f"{lines}\npwd > {self._place}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{lines}\n{done.stderr}"
        self.folder = Path(self._place.read_text().strip())
        return done.stdout
