"""The few colours of a report, each as (on light, on dark), and what a kind of entry is called.

Plots are drawn in the light colours; the page exchanges them where the reader prefers dark.
"""

from __future__ import annotations

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
KINDS = {"uncached": "uncached", "baseline": "hand-made", "found": "found by the search"}
