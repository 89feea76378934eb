"""Colours, fonts and axes of all plots.

Each colour has a light and a dark value. Plots are drawn in light colours; the report page replaces them in dark mode.
"""

from __future__ import annotations

from typing import Any

COLOURS = {
    "paper": ("#fcfcfa", "#141415"),
    "surface": ("#ffffff", "#1c1c1e"),
    "ink": ("#1d1d1f", "#ededee"),
    "muted": ("#66666b", "#a2a2a8"),
    "rule": ("#e4e3de", "#333337"),
    "uncached": ("#3f3f46", "#d4d4d8"),
    "baseline": ("#b45309", "#f0a45c"),
    "found": ("#0f766e", "#4fd1c1"),
    "candidate": ("#9ca3a2", "#74797a"),
    "reuse": ("#edf1f0", "#26292a"),
}
LIGHT = {name: light for name, (light, _) in COLOURS.items()}
DARK = {name: dark for name, (_, dark) in COLOURS.items()}

FONTS = "system-ui, -apple-system, Segoe UI, Roboto, sans-serif"

# What plots and tables call each kind of schedule.
KINDS = {"uncached": "uncached", "baseline": "hand-made", "found": "found by the search"}


def escaped(text: str) -> str:
    """Escape text for plotly, which would interpret some HTML tags, and text between dollar signs as TeX."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("$", "&#36;")


def axis(title: str, **more: Any) -> dict[str, Any]:
    """A plotly axis.

    Args:
        title: the axis title.
        **more: further properties of the axis, as plotly names them.
    """
    lines = {"gridcolor": LIGHT["rule"], "linecolor": LIGHT["rule"], "zeroline": False, "fixedrange": True, "ticks": ""}
    return {"title": {"text": title, "font": {"size": 13}, "standoff": 12}, **lines, **more}


def layout(height: int, margin: dict[str, int], **more: object) -> dict[str, object]:
    """A plotly layout.

    Args:
        height: of the figure, in pixels.
        margin: around the plot, in pixels, by side (l, r, t, b).
        **more: further properties of the layout, as plotly names them.
    """
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
