"""What a search's probes say, as an image file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def probe_plot(quality: Mapping[str, Sequence[float | None]], scorer: str) -> Figure:
    """Draw a heat map: components down, steps across; the darker, the more the image suffers.

    Args:
        quality: component -> quality if only this is not computed, at step 1, 2, ...; None where it is not known.
        scorer: of the quality.
    """
    values = np.array([[np.nan if one is None else one for one in row] for row in quality.values()])
    figure = Figure(figsize=(max(4.5, 0.34 * values.shape[1] + 2), 0.5 * len(values) + 1.3), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    image = axis.imshow(values, aspect="auto", cmap="GnBu_r", interpolation="nearest")
    axis.set_yticks(range(len(values)), list(quality), parse_math=False)
    marks = range(0, values.shape[1], 1 if values.shape[1] <= 24 else 5)
    axis.set_xticks(marks, [str(1 + mark) for mark in marks])
    axis.set_xlabel("step that is not computed")
    axis.spines[:].set_visible(False)
    figure.colorbar(image, label=scorer)
    return figure
