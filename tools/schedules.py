"""Fill schedules/: of studies their best at some speed-ups, and hand-made schedules for the paper's models.

ecad optimize -o build/front --generations 20
ecad optimize -o build/flux-front --generations 20 --image-generator EmojiFluxImageGenerator --prompt-file EIGHT
python tools/schedules.py build/front build/flux-front

EIGHT is a file of the first eight of `ecad.builtin.prompts("search")`; by default a search has four.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ecad.cost import count_macs, find_architecture
from ecad.cost.macs import macs_table
from ecad.genetic import Study
from ecad.genetic.study.layout import FRONT
from ecad.schedules import CacheSchedule, heuristics
from ecad.schedules.sharing import save_folder

FOLDER = Path("schedules")
SPEEDUPS = (1.5, 2, 2.5, 3, 3.5, 4, 5)
HAND_MADE = {"PixArtAlphaImageGenerator": 20, "PixArtSigmaImageGenerator": 20, "FluxImageGenerator": 20}


def found(folder: Path) -> None:
    """The best of a study's front, by its own prompts, that takes so many times fewer MACs."""
    study = Study.open(folder)
    generator = study.settings["evaluator"]["generator"]
    front = [CacheSchedule.load(file) for file in sorted((folder / FRONT).glob("*.json"))]
    for speedup in SPEEDUPS:
        affordable = [one for one in front if one.metrics["total_macs"] * speedup <= study.uncached_cost]
        best = max(affordable, key=lambda one: float(one.metrics["quality"]))
        share(best.replace(name=f"{generator} {speedup:g}x"), generator, f"{speedup:g}x")


def hand_made(image_generator: str, steps: int) -> None:
    """Every second and every third step."""
    sites = macs_table(find_architecture(image_generator)).sites
    for n in (2, 3):
        schedule = heuristics.every_n(sites, steps, n)
        macs = count_macs(schedule, image_generator)
        share(schedule.replace(metrics={"total_macs": macs}), image_generator, schedule.name)


def share(schedule: CacheSchedule, generator: str, name: str) -> None:
    place = FOLDER / generator / name
    save_folder(schedule, place, place.as_posix())
    print(place)


def fill(studies: list[Path]) -> None:
    for study in studies:
        found(study)
    for image_generator, steps in HAND_MADE.items():
        hand_made(image_generator, steps)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", type=Path, nargs="+", help="folders of studies of the built-in models")
    fill(parser.parse_args().studies)
