"""Draw the figures of docs/how-it-works.md: python tools/pictures.py [STUDY]

Without a study, the figure of the search stays as it is. It was drawn from a study of `benchmarks/search_cost.py`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot
from matplotlib.patches import FancyArrowPatch, Rectangle

from ecad.genetic import Study
from ecad.schedules import CacheSchedule
from ecad.schedules.plan import Action, make_plan
from ecad.sites.readers import readers
from ecad.utils.plot_style import LIGHT

ROOT = Path(__file__).parents[1]
# Fixed, so that the same figure gives the same file.
matplotlib.rcParams.update({"svg.hashsalt": "ecad", "font.size": 10, "svg.fonttype": "path", "axes.spines.top": False})
matplotlib.rcParams.update({"axes.spines.right": False, "text.color": LIGHT["ink"], "figure.facecolor": LIGHT["paper"]})

# A single block of FLUX over eight steps: if its projection is reused, the other two outputs are not read.
BLOCK = (("single_0", "single_attn"), ("single_0", "single_proj_mlp"), ("single_0", "single_proj_out"))
BLOCK_BITS = np.array([[1, 1, 1], [0, 0, 1], [1, 1, 0], [0, 1, 0], [1, 1, 1], [1, 1, 1], [0, 1, 1], [0, 0, 0]], bool)
ACTIONS = {
    Action.COMPUTE: (LIGHT["found"], "white", "compute", "and forget"),
    Action.KEEP: (LIGHT["found"], "white", "compute", "and keep"),
    Action.REUSE: (LIGHT["reuse"], LIGHT["ink"], "reuse", ""),
    Action.FREE: (LIGHT["reuse"], LIGHT["ink"], "reuse", "and free"),
    Action.SKIP: (LIGHT["paper"], LIGHT["muted"], "skip", ""),
}


def schedule(figure: Any) -> None:
    """The bits of a schedule, with steps as columns and blocks and components as rows."""
    found = CacheSchedule.load(ROOT / "examples" / "schedule.json")
    figure.set_size_inches(9, 4.6)
    axes = figure.subplots(1, len(found.components), sharey=True)
    for place, component in zip(axes, found.components, strict=True):
        columns = [i for i, (_, name) in enumerate(found.sites) if name == component]
        _bits(place, found.recompute[:, columns].T)
        place.set(title=component, xlabel="step", xticks=range(0, found.num_steps, 5))
    axes[0].set(ylabel="block", yticks=range(0, len(found.blocks), 2))


def plan(figure: Any) -> None:
    """The plan of a schedule's bits."""
    figure.set_size_inches(9, 2.6)
    axes = figure.subplots()
    actions = make_plan(BLOCK_BITS, readers(BLOCK)).actions
    for (step, site), bit in np.ndenumerate(BLOCK_BITS):
        colour, ink, verb, rest = ACTIONS[Action(actions[step, site])]
        axes.add_patch(Rectangle((step, site), 0.96, 0.94, color=colour, ec=LIGHT["rule"]))
        axes.text(step + 0.48, site + 0.5, f"{verb}\n{rest}".strip(), color=ink, ha="center", va="center", fontsize=9)
        axes.text(step + 0.9, site + 0.2, int(bit), color=ink, ha="right", va="center", fontsize=7, alpha=0.7)
    axes.set(xlim=(0, 8), ylim=(3, 0), xticks=np.arange(8) + 0.48, yticks=np.arange(3) + 0.47, xlabel="step")
    axes.set_xticklabels(range(8))
    axes.set_yticklabels([component.removeprefix("single_") for _, component in BLOCK])
    _bare(axes)


def clock(figure: Any) -> None:
    """How rows are identified from the pipeline's calls."""
    figure.set_size_inches(9, 2.4)
    axes = figure.subplots()
    calls = [("set_timesteps", "baseline")]
    for _ in range(3):
        calls += [("denoiser\nprompt", "found"), ("denoiser\nno prompt", "found"), ("step", "baseline")]
    x = 0.0
    for place, (name, colour) in enumerate(calls):
        width = 1.25 if colour == "found" else 1.0 if place else 1.6
        axes.add_patch(Rectangle((x, 0.6), width - 0.08, 0.8, color=LIGHT[colour]))
        axes.text(x + width / 2 - 0.04, 1.0, name, color="white", ha="center", va="center", fontsize=8)
        if name == "step":
            row = place // 3 - 1
            axes.add_patch(FancyArrowPatch((x - 2.5, 0.35), (x - 0.1, 0.35), arrowstyle="<->", color=LIGHT["muted"]))
            axes.text(x - 1.3, 0.1, f"row {row} of the schedule", ha="center", va="center", fontsize=9)
        x += width
    axes.text(x + 0.1, 1.0, "...", va="center")
    axes.text(0, 1.75, "what the pipeline calls: its scheduler (brown) and its denoiser (green), in time", fontsize=9)
    axes.set(xlim=(0, x + 0.5), ylim=(-0.1, 2), xticks=[], yticks=[])
    _bare(axes)


def search(figure: Any, study: Study) -> None:
    """Which part of the search proposed which candidates, and their measured quality."""
    figure.set_size_inches(9, 4.4)
    axes = figure.subplots()
    cost = np.array([one.cost for one in study.candidates]) / study.uncached_cost
    quality = np.array([one.quality for one in study.candidates])
    stage = np.minimum([one.generation for one in study.candidates], 2)
    names = ("1. probes: one step reuses all", "2. dynamic programming", "3. picked by the surrogate")
    for i, (name, colour) in enumerate(zip(names, ("baseline", "uncached", "found"), strict=True)):
        axes.scatter(
            cost[stage == i], quality[stage == i], s=14, color=LIGHT[colour], alpha=0.75, label=name, zorder=3 - i
        )
    front = study.front()
    axes.step(
        [one.cost / study.uncached_cost for one in front],
        [one.quality for one in front],
        where="post", color=LIGHT["muted"], lw=0.8, zorder=0, label="front",
    )  # fmt: skip
    axes.set(xlabel="cost, as a share of the uncached image's MACs", ylabel="PSNR, dB", xlim=(0, 1.01))
    axes.legend(frameon=False, loc="upper left")


def _bits(axes: Any, bits: np.ndarray) -> None:
    axes.imshow(bits, cmap=matplotlib.colors.ListedColormap([LIGHT["reuse"], LIGHT["found"]]), aspect="auto")
    axes.set_xticks(np.arange(bits.shape[1] + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(bits.shape[0] + 1) - 0.5, minor=True)
    axes.grid(which="minor", color=LIGHT["paper"], lw=1)
    axes.tick_params(which="minor", length=0)
    _bare(axes)


def _bare(axes: Any) -> None:
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0)


def save(name: str, draw: Callable[[Any], None]) -> None:
    figure = pyplot.figure(layout="constrained")
    draw(figure)
    figure.savefig(ROOT / "docs" / "images" / f"{name}.svg", metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path, nargs="?")
    folder = parser.parse_args().study
    for drawing in (schedule, plan, clock):
        save(f"how-{drawing.__name__}", drawing)
    if folder is not None:
        save("how-search", lambda figure: search(figure, Study.open(folder)))
