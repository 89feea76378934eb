"""A fresh checkout of the repository, and a shell in which somebody follows its documents."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import ecad_server

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
        folder: where it begins.
        environment: of all lines.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self._environment = environment
        self._place = folder.with_name("place")

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


@contextmanager
def shell_in(checkout: Path) -> Iterator[Shell]:
    """A shell in a checkout whose `ecad` it runs."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "XDG_CACHE_HOME": str(checkout.with_name("cache"))}
    with TemporaryDirectory() as place:  # the name of a socket must be short
        address, client = os.path.join(place, "socket"), Path(place, "ecad")
        client.write_text(ecad_server.CLIENT.format(python=sys.executable, address=address))
        client.chmod(0o755)
        started = [sys.executable, ecad_server.__file__, address]
        with subprocess.Popen(started, env=environment, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                assert server.stdout.readline() == "ready\n"
                yield Shell(checkout, {**environment, "PATH": f"{place}{os.pathsep}{environment['PATH']}"})
            finally:
                server.kill()
