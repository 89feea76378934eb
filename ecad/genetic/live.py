"""`ecad optimize --live`: the page of a study, served while a search writes it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ecad.errors import EcadError
from ecad.genetic.study.layout import DATABASE
from ecad.genetic.study.results import study_results
from ecad.report.page import page

_HOST = "127.0.0.1"


@contextmanager
def live_page(folder: Path, port: int = 0, state: Callable[[], str] = lambda: "Running.") -> Iterator[str]:
    """Serve the page of a study to browsers on this machine until the end of the context.

    Args:
        folder: of the study, which need not exist yet.
        port: TCP port; 0 takes a free one.
        state: returns what the page says about the search: how far it is, since when, how long it may still take.

    Yields:
        the page's address.

    Raises:
        EcadError: the port is taken.
    """
    try:
        server = ThreadingHTTPServer((_HOST, port), partial(_Handler, _Page(folder), state))
    except OSError as error:
        raise EcadError(f"`port` {port} cannot be used: {error.strerror}; choose another") from error
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="ecad-live", daemon=True)
    thread.start()
    try:
        yield f"http://{_HOST}:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Page:
    """The current page of a study, made again when the study has changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._made: tuple[str, bytes] = ("", b"")

    def version(self) -> str:
        """A text that changes when the study's files do."""
        files = [self._folder / f"{DATABASE}{suffix}" for suffix in ("", "-wal")]
        stats = [file.stat() for file in files if file.exists()]
        return "-".join(f"{stat.st_mtime_ns}.{stat.st_size}" for stat in stats) or "none"

    def content(self) -> bytes:
        with self._lock:
            version = self.version()
            if self._made[0] != version:
                self._made = version, page(study_results(self._folder), self._folder, version).encode()
            return self._made[1]


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, shown: _Page, state: Callable[[], str], *rest: object) -> None:
        self._shown, self._state = shown, state
        super().__init__(*rest)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        # Against DNS rebinding: a foreign page whose host name resolves to this machine must not read the study.
        if self.headers.get("Host", "").rpartition(":")[0] not in (_HOST, "localhost"):
            self._answer(403, b"not this host", "text/plain")
        elif self.path == "/version":
            self._answer(200, self._shown.version().encode(), "text/plain")
        elif self.path == "/state":
            self._answer(200, self._state().encode(), "text/plain")
        elif self.path == "/":
            try:
                self._answer(200, self._shown.content(), "text/html")
            except EcadError:
                waiting = b'<!doctype html><meta http-equiv="refresh" content="2"><p>The search has not started yet.'
                self._answer(200, waiting, "text/html")
        else:
            self._answer(404, b"no such page", "text/plain")

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: the terminal shows the search's progress."""

    def _answer(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)
