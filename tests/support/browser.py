"""Pages in a real browser, and how a point of their plot is clicked."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

_SPOT = """i => {
  const plot = document.getElementById("front-plot"), { xaxis, yaxis } = plot._fullLayout;
  const box = plot.getBoundingClientRect();
  for (const trace of plot.data) {
    const k = [...(trace.customdata ?? [])].indexOf(i);
    if (k >= 0) return [box.x + xaxis._offset + xaxis.d2p(trace.x[k]), box.y + yaxis._offset + yaxis.d2p(trace.y[k])];
  }
}"""

_UNDER_MOUSE = """i => document.getElementById("front-plot")._hoverdata?.some(point => point.customdata === i)"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no browser: expected chromium, which `make test` installs where it may")
    with playwright.sync_playwright() as started:
        # A container's root has no sandbox of its own.
        opened = started.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


def opened(browser: Any, address: Path | str, wrong: list[str], **options: Any) -> Any:
    """A page in a window of its own; `wrong` gets what goes wrong in it, and what it asks of the network."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    # However busy the machine is.
    context.set_default_timeout(300_000)
    page = context.new_page()
    page.on("console", lambda message: message.type in ("error", "warning") and wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: (wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on(
        "request",
        lambda request: re.match(r"file:|data:|blob:|http://127", request.url) or wrong.append(request.url),
    )
    page.goto(address.as_uri() if isinstance(address, Path) else address)
    return page


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open a page; in the end nothing may have gone wrong in it."""
    wrong: list[str] = []
    pages = []

    def visited(address: Path | str, **options: Any) -> Any:
        pages.append(opened(browser, address, wrong, **options))
        return pages[-1]

    yield visited
    for page in pages:
        page.context.close()
    assert wrong == []


def click_point(page: Any, i: int, *keys: str) -> None:
    for key in keys:
        page.keyboard.down(key)
    # Plotly looks under the mouse a moment later, and a plot that is being redrawn moves its points.
    for _ in range(200):
        x, y = page.evaluate(_SPOT, i)
        page.mouse.move(x, y, steps=3)
        page.wait_for_timeout(100)
        if page.evaluate(_UNDER_MOUSE, i) and page.evaluate(_SPOT, i) == [x, y]:
            break
        page.mouse.move(0, 0)
    else:
        pytest.fail(f"point {i} was not found under the mouse at {x}, {y}")
    page.mouse.click(x, y)
    for key in keys:
        page.keyboard.up(key)
