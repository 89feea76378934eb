"""What every page of the report is made with: the template, the script, the style, plotly, and pictures as text."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import plotly
from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup
from PIL import Image
from plotly.offline import get_plotlyjs

from ecad.utils.plot_style import COLOURS, DARK, LIGHT

# Pictures larger than this are shown smaller: a page of a few hundred should stay within a few megabytes.
LARGEST_SIDE = 256
_WEBP_QUALITY = 88


def render(name: str, scripts: Sequence[str], data: dict[str, Any], **values: Any) -> str:
    """A page as text.

    Args:
        name: of the template in this folder.
        scripts: files in this folder, in the order in which they run.
        data: what they read, JSON values.
        **values: what the template shows; all text in them is escaped.
    """
    templates = {file: _asset(file) for file in ("base.html", name)}
    environment = Environment(
        loader=DictLoader(templates), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(name).render(
        **values,
        data={"recolour": {LIGHT[name]: DARK[name] for name in COLOURS}, **data},
        colours=COLOURS,
        style=Markup(_asset("page.css")),
        script=Markup("".join(map(_asset, scripts))),
        plotly=Markup(get_plotlyjs()) if "plots" in data else "",
        plotly_version=plotly.__version__,
    )


def data_uri(path: Path) -> str | None:
    """A picture to be put into the page; None if there is none to be read."""
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            if image.format == "PNG" and max(image.size) <= LARGEST_SIDE:
                return f"data:image/png;base64,{base64.b64encode(content).decode()}"
            smaller = image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    smaller.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    smaller.save(stream, format="WEBP", quality=_WEBP_QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _asset(name: str) -> str:
    return resources.files("ecad.report").joinpath(name).read_text("utf-8")
