"""What all plotly figures of a report share: colours, axes, layout, and text that stays text."""

from __future__ import annotations

from typing import Any

from ecad.report.palette import LIGHT

FONTS = "system-ui, -apple-system, Segoe UI, Roboto, sans-serif"


def escaped(text: str) -> str:
    """Text that plotly shows as it is: it would take some tags for its own, and what stands between dollars for TeX."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("$", "&#36;")


def axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis with its title; `more` as plotly names it."""
    lines = {"gridcolor": LIGHT["rule"], "linecolor": LIGHT["rule"], "zeroline": False, "fixedrange": True, "ticks": ""}
    return {"title": {"text": title, "font": {"size": 13}, "standoff": 12}, **lines, **more}


def layout(height: int, margin: dict[str, int], **more: Any) -> dict[str, Any]:
    """A figure's layout; its height and margin in pixels."""
    return {
        "template": "none",
        "height": height,
        "margin": margin,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONTS, "size": 13, "color": LIGHT["muted"]},
        "hoverlabel": {"bgcolor": LIGHT["surface"], "bordercolor": LIGHT["rule"], "font": {"color": LIGHT["ink"]}},
        "dragmode": False,
        "showlegend": False,
        **more,
    }
