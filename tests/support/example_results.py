"""Results of a search that never ran: small, with every kind of thing that a report shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ecad.report import Candidate, Entry, Generation, Interval, Picture, Results, save_images
from ecad.report.results import Guess
from ecad.report.summary import packed
from ecad.schedules import CacheSchedule, heuristics, pixart_sites

SITES = pixart_sites(2)
HOSTILE = "</script><script>alert('$x^$')</script> [bold]&amp;|"


def evolved() -> CacheSchedule:
    recompute = np.zeros((4, 6), bool)
    recompute[0] = recompute[2, :3] = True
    products = np.minimum.outer(np.arange(4.0), np.arange(4.0)) + 1
    return CacheSchedule(
        recompute, SITES, "evolved", forecast=True, output_products=products, attributes={"generation": 3}
    )


def pictures(value: int, side: int = 8) -> np.ndarray:
    """Two flat uint8 pictures."""
    return np.stack([np.full((side, side, 3), value + i, np.uint8) for i in range(2)])


def made(folder: Path) -> Results:
    every_2 = heuristics.every_n(SITES, 4, 2)
    entries = (
        Entry(
            name="found-1",
            kind="found",
            schedule=evolved(),
            macs=1_250_000_000,
            time_ratio=2.5,
            scores={"judge": Interval(26.5, 25.25, 27.75), "similarity": Interval(0.75, 0.5, 0.875)},
            search_quality=27.0,
            images=save_images(folder, "found-1", pictures(30)),
        ),
        Entry(
            name="uncached",
            kind="uncached",
            schedule=heuristics.none(SITES, 4),
            macs=4_000_000_000,
            time_ratio=1.0,
            scores={"judge": Interval(27.25, 26.0, 28.5)},
            search_quality=28.0,
            images=save_images(folder, "uncached", pictures(10)),
        ),
        Entry(
            name=HOSTILE,
            kind="baseline",
            schedule=every_2,
            macs=2_000_000_000,
            scores={"judge": Interval(26.0, 25.0, 27.0), "similarity": Interval(0.5, 0.25, 0.625)},
            images=save_images(folder, HOSTILE, pictures(20)),
        ),
    )
    return Results(
        title=f"A title {HOSTILE}",
        generator="EmojiImageGenerator",
        pictures=(Picture("a 3d crab", 1), Picture(HOSTILE, 2)),
        entries=entries,
        quality_name="judge",
        candidates=(
            Candidate(0, 1_000_000_000, 25.0, 0, packed(~every_2.recompute)),
            Candidate(1, 3_000_000_000, 27.5, 7, packed(evolved().recompute), forecast=True),
        ),
        guesses=(Guess(1, 26.0, 25.0), Guess(1, 27.0, 27.5)),
        history=(Generation(0, 32, 2.5, 0.25, 1), Generation(1, 64, 62.0, 0.5, 2)),
        settings={"seed": 0, HOSTILE: [HOSTILE, None, 0.1]},
    )


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """Results whose images lie in `tmp_path`."""
    return made(tmp_path)
