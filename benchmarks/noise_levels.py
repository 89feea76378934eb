"""The loss of mapping a schedule of whole steps to another sampler or number of steps by noise level.

python benchmarks/noise_levels.py [--speedups 1.5 2 3] [--prompts 8] [--output F]

On the built-in model, the outputs of uncached runs are recorded in its default setting (DPM-Solver++, 20 steps) and in
each other one, and a front of whole steps is made from each recording. In each setting, three schedules with equal
numbers of computed steps are compared by PSNR to its uncached images on held-out prompts: the default setting's mapped
by noise level, the same resampled by relative time, and the one recorded in this setting.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, UniPCMultistepScheduler

from ecad import CacheSchedule, get_image_generator
from ecad.image_generators import ImageGenerator
from ecad.integrations.recorded import Recording, front_of
from ecad.quality import mean_interval, psnr
from ecad.schedules.by_sigma import at_sigmas
from ecad.schedules.front import Front
from ecad.utils.console import bar
from ecad.utils.files import write_atomic

OWN = "DPM++, 20 steps"
SETTINGS: dict[str, tuple[Any, dict[str, Any], int]] = {
    OWN: (DPMSolverMultistepScheduler, {}, 20),
    "DPM++, 10 steps": (DPMSolverMultistepScheduler, {}, 10),
    "DPM++, 14 steps": (DPMSolverMultistepScheduler, {}, 14),
    "DPM++, 30 steps": (DPMSolverMultistepScheduler, {}, 30),
    "DPM++, 40 steps": (DPMSolverMultistepScheduler, {}, 40),
    "DPM++ Karras, 20 steps": (DPMSolverMultistepScheduler, {"use_karras_sigmas": True}, 20),
    "Euler, 20 steps": (EulerDiscreteScheduler, {}, 20),
    "Euler, 30 steps": (EulerDiscreteScheduler, {}, 30),
    "DDIM, 20 steps": (DDIMScheduler, {"timestep_spacing": "linspace"}, 20),
    "UniPC, 20 steps": (UniPCMultistepScheduler, {}, 20),
}
RECORDED = 16


class Setting:
    """The built-in model with one sampler and number of steps."""

    def __init__(self, generator: ImageGenerator, name: str, recorded: Sequence[str], judged: Sequence[str]) -> None:
        kind, options, self.steps = SETTINGS[name]
        generator.pipe.scheduler = kind.from_config(generator.pipe.scheduler.config, **options)
        self.generator = replace(generator, steps=self.steps)
        self.sigmas = noise_levels(generator.pipe.scheduler, self.steps)
        products = self.generator.output_products(generator.encode(recorded), range(1000, 1000 + len(recorded)))
        assert products is not None
        self.front = front_of(name, Recording(self.sigmas, products, len(recorded), "v_prediction"))
        self._embeds, self._seeds = generator.encode(judged), list(range(len(judged)))
        self._references = self._images(None)

    def decibels(self, schedule: CacheSchedule) -> np.ndarray:
        """PSNR to the uncached images, of each prompt."""
        sites = CacheSchedule.for_model(self.generator.pipe, self.steps).sites
        bits = np.repeat(schedule.recompute, len(sites), axis=1)
        rest = {"forecast": True, "output_products": schedule.output_products}
        return psnr(self._images(CacheSchedule(bits, sites, **rest)), self._references)

    def _images(self, schedule: CacheSchedule | None) -> np.ndarray:
        return self.generator.generate(self._embeds, self._seeds, schedule)


def noise_levels(scheduler: Any, steps: int) -> list[float]:
    """The noise levels of each step and of the end."""
    scheduler.set_timesteps(steps)
    alphas = np.asarray(scheduler.alphas_cumprod, dtype=np.float64)
    by_time = np.sqrt((1 - alphas) / alphas)
    return [*np.interp(scheduler.timesteps.double().numpy(), np.arange(len(by_time)), by_time).tolist(), 0.0]


def with_as_many(front: Front, count: int) -> CacheSchedule:
    """The schedule of a front with a number of computed steps."""
    return next(schedule for schedule in front.schedules if schedule.recompute.sum() == count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speedups", type=float, nargs="+", default=[1.5, 2.0, 3.0])
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--output", type=Path, default=Path("docs/noise-levels.json"))
    args = parser.parse_args()
    prompts = json.loads(resources.files("ecad").joinpath("builtin/prompts.json").read_text(encoding="utf-8"))
    recorded, judged = prompts["search"][:RECORDED], prompts["held_out"][: args.prompts]
    generator, rows, own = get_image_generator("EmojiImageGenerator"), [], None
    for name in bar(list(SETTINGS), "settings"):
        setting = Setting(generator, name, recorded, judged)
        own = own or setting.front
        for speedup in args.speedups:
            found = own.pick(speedup=speedup)
            carried = at_sigmas(found, setting.sigmas)
            rules = {"by noise level": carried, "by relative time": found.resample(setting.steps)}
            rules["recorded there"] = with_as_many(setting.front, int(carried.recompute.sum()))
            for rule, schedule in rules.items():
                told = {"setting": name, "speedup": speedup, "rule": rule, "computed": int(schedule.recompute.sum())}
                decibels = setting.decibels(schedule)
                low, high = mean_interval(decibels)
                rows.append({**told, "steps": setting.steps, "psnr": float(decibels.mean()), "low": low, "high": high})
    write_atomic(
        args.output, json.dumps({"prompts": args.prompts, "recorded": RECORDED, "rows": rows}, indent=1) + "\n"
    )
    print(f"{'setting':24}{'computed':>10}{'by noise level':>16}{'by relative time':>18}{'recorded there':>16}")
    for place in range(0, len(rows), 3):
        first, *others = rows[place : place + 3]
        values = "".join(f"{row['psnr']:{width}.1f}" for row, width in zip((first, *others), (16, 18, 16), strict=True))
        print(f"{first['setting']:24}{first['computed']:>4} of {first['steps']:>2}{values}")
    print(f"written to {args.output}")


if __name__ == "__main__":
    main()
