"""Compares rules that transfer a schedule to another number of steps, by PSNR to uncached images.

python benchmarks/resample.py FILE... [--steps 10 14 30 40] [--prompts 4] [--output F]

FILE are schedules that were found for the built-in model (`ecad optimize`). Each is resampled by each rule. Its gain is
its PSNR minus that of evenly spaced whole steps at the same MACs (interpolated over log MACs between two numbers of
steps). The prompts are held out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from statistics import mean

import numpy as np

from ecad import CacheSchedule, get_image_generator
from ecad.cost import macs_table
from ecad.image_generators import ImageGenerator
from ecad.quality import psnr
from ecad.schedules.resample import resample_steps
from ecad.utils.console import bar
from ecad.utils.files import write_atomic

Places = list[int]
Rule = Callable[[Places, int, int], Places]


def nearest_row(places: Places, steps: int, new_steps: int) -> Places:
    """Each new row is the old row of the same relative time."""
    return [row for row in range(new_steps) if row * steps // new_steps in places]


def same_times(places: Places, steps: int, new_steps: int) -> Places:
    """Each recomputation goes to the row nearest to its relative time; two in one row become one."""
    return sorted({min((2 * place * new_steps + steps) // (2 * steps), new_steps - 1) for place in places})


def equal_mass(places: Places, steps: int, new_steps: int) -> Places:
    """A row recomputes when the scaled number of old recomputations up to its end reaches the next whole number."""
    held = np.concatenate([[0], np.cumsum(np.isin(np.arange(steps), places))])
    mass = np.interp(np.arange(new_steps + 1) * steps / new_steps, np.arange(steps + 1), held) * new_steps / steps
    return list(map(int, np.diff(np.ceil(mass - 1e-9)).nonzero()[0]))


def density_of_gaps(places: Places, steps: int, new_steps: int) -> Places:
    """Like the package's rule, but a recomputation's share is spread over the whole gap that follows it."""
    count = max(1, half_up(len(places) * new_steps / steps))
    index = np.arange(count) * len(places) / count
    return landed(np.interp(index, np.arange(len(places) + 1), [*places, steps]) / steps, new_steps)


def fixed_ends(places: Places, steps: int, new_steps: int) -> Places:
    """Like `density_of_gaps`, but the last recomputation stays at its time."""
    count = max(1, half_up(len(places) * new_steps / steps))
    index = np.linspace(0, len(places) - 1, count)
    return landed(np.interp(index, np.arange(len(places)), places) / steps, new_steps)


def landed(times: np.ndarray, new_steps: int) -> Places:
    """The rows nearest to relative times."""
    return sorted({min(half_up(time * new_steps), new_steps - 1) for time in times})


def half_up(value: float) -> int:
    return int(np.floor(value + 0.5 + 1e-9))


RULES: dict[str, Rule] = {
    "nearest row": nearest_row,
    "same times": same_times,
    "equal mass": equal_mass,
    "density of gaps": density_of_gaps,
    "fixed ends": fixed_ends,
    "density": resample_steps,
}


def resampled(schedule: CacheSchedule, rule: Rule, new_steps: int) -> np.ndarray:
    """The bits of a schedule, resampled by a rule, bool (new_steps, sites)."""
    bits = np.zeros((new_steps, len(schedule.sites)), dtype=bool)
    for site, column in enumerate(schedule.recompute.T):
        places = sorted({0, *map(int, column.nonzero()[0])})
        bits[rule(places, schedule.num_steps, new_steps), site] = True
    return bits


class Bench:
    """Compares the built-in model's images at one number of steps with the uncached ones."""

    def __init__(self, generator: ImageGenerator, prompts: list[str], steps: int) -> None:
        self._generator, self._steps = generator, steps
        self._table = macs_table(generator.architecture)
        self._embeds, self._seeds = generator.encode(prompts), list(range(len(prompts)))
        self._references = generator.generate(self._embeds, self._seeds, steps=steps)
        self._decibels: dict[bytes, float] = {}

    def macs(self, bits: np.ndarray) -> float:
        """MACs of one image as a fraction of the uncached one's."""
        return float(self._table.price(bits) / self._table.price(np.ones_like(bits)))

    def decibels(self, bits: np.ndarray) -> float:
        """PSNR, mean over the prompts."""
        if bits.tobytes() not in self._decibels:
            schedule = CacheSchedule(bits, self._table.sites)
            images = self._generator.generate(self._embeds, self._seeds, schedule, steps=self._steps)
            self._decibels[bits.tobytes()] = float(psnr(images, self._references).mean())
        return self._decibels[bits.tobytes()]

    def gain(self, bits: np.ndarray) -> float:
        """PSNR minus that of evenly spaced whole steps at the same MACs."""
        even = [self.even(count) for count in range(1, self._steps + 1)]
        above = next(i for i, other in enumerate(even) if i and self.macs(other) >= self.macs(bits))
        places = np.log([self.macs(other) for other in even[above - 1 : above + 1]])
        values = [self.decibels(other) for other in even[above - 1 : above + 1]]
        return self.decibels(bits) - float(np.interp(np.log(self.macs(bits)), places, values))

    def even(self, count: int) -> np.ndarray:
        """The bits of `count` evenly spaced whole steps."""
        bits = np.zeros((self._steps, len(self._table.sites)), dtype=bool)
        bits[np.arange(count) * self._steps // count] = True
        return bits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", metavar="FILE", type=Path, nargs="+")
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 14, 30, 40])
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks/resample.json"))
    args = parser.parse_args()
    generator = get_image_generator("EmojiImageGenerator")
    prompts = json.loads(resources.files("ecad").joinpath("builtin/prompts.json").read_text(encoding="utf-8"))
    schedules = [CacheSchedule.load(file) for file in args.files]
    rows = []
    for steps in bar([generator.steps, *args.steps], "step counts"):
        bench = Bench(generator, prompts["held_out"][: args.prompts], steps)
        for schedule in schedules:
            for name, rule in RULES.items() if steps != generator.steps else [("as found", resample_steps)]:
                bits = resampled(schedule, rule, steps)
                row = {"schedule": schedule.name, "steps": steps, "rule": name, "macs": bench.macs(bits)}
                rows.append({**row, "gain": bench.gain(bits)})
    write_atomic(args.output, json.dumps({"prompts": args.prompts, "rows": rows}, indent=1) + "\n")
    print(f"{'steps':>5}  {'rule':16}{'MACs':>7}{'gain dB':>9}")
    for steps, name in dict.fromkeys((row["steps"], row["rule"]) for row in rows):
        group = [row for row in rows if (row["steps"], row["rule"]) == (steps, name)]
        print(f"{steps:5}  {name:16}{mean(r['macs'] for r in group):7.1%}{mean(r['gain'] for r in group):9.2f}")
    print(f"written to {args.output}")


if __name__ == "__main__":
    main()
