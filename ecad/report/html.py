"""Renders the pages of reports: templates, scripts, styles, plotly, and images as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import plotly
from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup
from PIL import Image
from plotly.offline import get_plotlyjs

from ecad.utils.plot_style import COLOURS, DARK, LIGHT

# Larger images are scaled down, so that a page with a few hundred of them has a few megabytes.
MAX_SIDE = 256
_WEBP_QUALITY = 88
_WEBP_SIDE = 16_000


def render(name: str, scripts: Sequence[str], data: dict[str, object], **values: object) -> str:
    """Render a page as HTML text.

    Args:
        name: the template's file name in this folder.
        scripts: file names in this folder, in the order in which they run.
        data: JSON values for the scripts.
        **values: variables of the template; all text in them is escaped.
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


def data_uri(path: Path, frames: int = 1) -> str | None:
    """An image as a data URI; None if it cannot be read.

    Args:
        path: the image.
        frames: of a video, which is an image of its frames one below the other.
    """
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            if image.format == "PNG" and max(image.width, image.height / frames) <= MAX_SIDE:
                return f"data:image/png;base64,{base64.b64encode(content).decode()}"
            smaller = image.convert("RGB")
    except Exception:  # each of Pillow's formats raises whatever its parser raises
        return None
    # Whole pixels per frame, so that no frame shows a part of the next.
    scale = min(1.0, MAX_SIDE / max(smaller.width, smaller.height / frames), _WEBP_SIDE / smaller.height)
    width, height = (max(1, round(side * scale)) for side in (smaller.width, smaller.height / frames))
    smaller = smaller.resize((width, height * frames), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    smaller.save(stream, format="WEBP", quality=_WEBP_QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _asset(name: str) -> str:
    return resources.files("ecad.report").joinpath(name).read_text("utf-8")
