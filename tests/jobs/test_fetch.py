"""Downloads from a server on this machine: what arrives, what goes on, what is refused."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ecad.errors import EcadError
from ecad.jobs import fetch as fetching
from ecad.jobs.fetch import SOURCES, Source, fetch

CONTENT = b"a fox\nan owl\n" * 50
SOURCE = Source("o/r/c/p.txt", "prompts/p.txt", "CC0", hashlib.sha256(CONTENT).hexdigest())


class Server(ThreadingHTTPServer):
    """Serves files from memory and remembers what was asked for; `cut` bytes are left off each answer."""

    files: dict[str, bytes]
    asked: list[tuple[str, str | None]]
    cut = 0
    ranges = True


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        wanted = self.headers.get("Range") if self.server.ranges else None
        self.server.asked.append((self.path, wanted))
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = int(wanted.split("=")[1].split("-")[0]) if wanted else 0
        if start and start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(content) - start))
        # What huggingface_hub asks of a server.
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if body:
            self.wfile.write(content[start : len(content) - self.server.cut])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        running.files, running.asked = {"/o/r/c/p.txt": CONTENT}, []
        monkeypatch.setattr(fetching, "GITHUB", f"http://127.0.0.1:{running.server_port}")
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()


def test_a_file_arrives_once(server: Server, tmp_path: Path) -> None:
    assert fetch(SOURCE, tmp_path)
    assert not fetch(SOURCE, tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()] == [
        "prompts/p.txt"
    ]
    assert (tmp_path / "prompts/p.txt").read_bytes() == CONTENT
    assert server.asked == [("/o/r/c/p.txt", None)]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_goes_on(server: Server, tmp_path: Path, ranges: bool) -> None:
    server.cut, server.ranges = 600, ranges
    with pytest.raises(EcadError, match="run the command again to resume"):
        fetch(SOURCE, tmp_path)
    assert not (tmp_path / "prompts/p.txt").exists()
    server.cut = 0
    assert fetch(SOURCE, tmp_path)
    assert (tmp_path / "prompts/p.txt").read_bytes() == CONTENT
    assert server.asked[-1][1] == ("bytes=50-" if ranges else None)


def test_what_was_complete_before_the_kill_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts/.p.txt.partial").write_bytes(CONTENT)
    assert fetch(SOURCE, tmp_path)
    assert (tmp_path / "prompts/p.txt").read_bytes() == CONTENT


def test_another_content_is_refused_and_not_kept(server: Server, tmp_path: Path) -> None:
    server.files["/o/r/c/p.txt"] = b"something else"
    with pytest.raises(EcadError, match="the downloaded file is not the published one"):
        fetch(SOURCE, tmp_path)
    assert list((tmp_path / "prompts").iterdir()) == []


def test_a_file_of_the_user_is_not_overwritten(server: Server, tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts/p.txt").write_text("mine")
    with pytest.raises(EcadError, match="move it away"):
        fetch(SOURCE, tmp_path)
    assert (tmp_path / "prompts/p.txt").read_text() == "mine"
    assert server.asked == []


def test_an_error_of_the_server_and_no_server_are_one_line(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EcadError, match="the server says 404"):
        fetch(Source("o/r/c/none", "prompts/none", "CC0", "0"), tmp_path)
    monkeypatch.setattr(fetching, "GITHUB", "http://127.0.0.1:1")
    with pytest.raises(EcadError, match="cannot be downloaded") as caught:
        fetch(SOURCE, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_schedule_must_read_as_one(server: Server, tmp_path: Path) -> None:
    source = SOURCES["published-schedules"][0]
    server.files[f"/{source.address}"] = b"{}"
    with pytest.raises(EcadError):
        fetch(source, tmp_path)
    assert not (tmp_path / source.target).exists()


def test_the_known_files_are_the_published_ones(shared_data: Path) -> None:
    for name in ("coco", "parti", "drawbench", "image-reward"):
        source = SOURCES[name][0]
        content = (shared_data / source.target).read_bytes()
        assert hashlib.sha256(content).hexdigest() == source.sha256
    assert len({source.target for sources in SOURCES.values() for source in sources}) == 22


def test_mjhq_comes_through_the_hub(server: Server, tmp_path: Path) -> None:
    """In a process of its own: what the hub's client may do is settled when it is imported."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as pictures:
        pictures.writestr("mjhq30k_imgs/food/b7.jpg", b"picture")
    home = f"/datasets/{fetching.MJHQ}/resolve/main"
    server.files[f"{home}/meta_data.json"] = json.dumps({"b7": {"category": "food", "prompt": "a pie"}}).encode()
    server.files[f"{home}/mjhq30k_imgs.zip"] = archive.getvalue()
    environment = {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path / "hub"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ecad", "fetch", "mjhq", "-o", str(tmp_path), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    done = run("--prompts-only")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "references").exists()
    assert run("--json").returncode == 0
    assert json.loads((tmp_path / "prompts/MJHQ-30K-prompts.json").read_text())["b7"]["prompt"] == "a pie"
    assert (tmp_path / "references/mjhq/food/b7.jpg").read_bytes() == b"picture"
    del server.files[f"{home}/meta_data.json"]
    environment["HF_HOME"] = str(tmp_path / "other")
    failed = run()
    assert failed.returncode == 2
    assert failed.stderr.splitlines()[-1].startswith(
        "ecad: meta_data.json of playgroundai/MJHQ-30K: cannot be downloaded"
    )
