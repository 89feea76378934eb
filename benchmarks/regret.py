"""What a search hands out, against the best that it evaluated and against its beginning, on held-out prompts.

python benchmarks/regret.py [--generator EmojiImageGenerator] [--arms "search|calibrate"] [--seeds 0,1,2,3,4]
                            [--held-out 24] [--output build/benchmarks/regret]

At nine costs, 20% to 60% of an uncached image's. A search is `ecad optimize` at its defaults and at most the last of
these costs, with 4 prompts and 8 that validate, for at most 9 generations; each seed has other prompts and other noise.
Its beginning is what would be handed out after dynamic programming, without any evolution. A calibration has 8 prompts
in all, and with 400 images it moves computed steps, each choice judged with output weights fitted to it.

The best that was evaluated: at each cost the candidates that the search's own prompts find best, of all and of those
of its beginning that forecast whole steps, with output weights fitted as those that are handed out. Given up are those
that are over 1.5 dB below the best of these on the validation prompts before the fit, or over 0.5 dB below the one that
is handed out on the first 8 held-out prompts after it; the others have all of these prompts. The maximum over them is
partly luck, so the true regret is rather less.

Scores are kept by schedule and prompt in the output folder, so that a run that was stopped resumes. A search's front
is written there, too, for `peers.py --fronts`.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from regret_table import COSTS, print_tables, summary

from ecad import builtin
from ecad.calibration.fitting import share_run
from ecad.calibration.of_generator import calibrated_front, weights_fitter
from ecad.commands.progress import search_progress
from ecad.errors import EcadError
from ecad.genetic import Candidate, Evaluator, LocalEvaluator, Store, Study
from ecad.genetic.algorithms.surrogate_search import Ingredients
from ecad.genetic.evaluation.evaluator import evaluate
from ecad.genetic.evaluation.image_evaluator import evaluator_of
from ecad.genetic.evaluation.problems import problem_of
from ecad.genetic.search import search
from ecad.genetic.selection import LAST_PROGRAMMED, ROUNDS, near_front, select_by_validation
from ecad.genetic.study.items import Batch
from ecad.image_generators import ImageGenerator, get_image_generator
from ecad.prompts import Prompt
from ecad.schedules import CacheSchedule
from ecad.schedules.front import Front, Point
from ecad.schedules.plan_key import plan_key
from ecad.utils.console import console
from ecad.utils.files import write_atomic

SEARCH, VALIDATION, CALIBRATION = 4, 8, 8
GENERATIONS, PATIENCE = 9, 3
# Prompts between one seed's first and the next one's: of 48, five seeds use all.
APART = 9
HELD_OUT_SEED, VALIDATION_SEED = 1_000_000, 2_000_000
# Decibels behind on the validation prompts, without output weights, that give up what may have been better; the same on
# the first held-out prompts, with output weights.
_FAR_BEHIND = 1.5
_RACED, _GIVEN_UP = 8, 0.5
_ROUNDING = 1e-9

ARMS = {
    "search": Ingredients(),
    "no surrogate": Ingredients(surrogate=False),
}
# The images that may be spent.
CALIBRATIONS = {"calibrate": None, "calibrate, 400 images": 400.0}


def affordable(points: Sequence[Point], cost: float) -> Point | None:
    """The most expensive of a front at or below a cost."""
    found = [one for one in points if one.cost <= cost * (1 + _ROUNDING)]
    return max(found, key=lambda one: one.cost, default=None)


@dataclass
class HeldOutScores:
    """Scores of schedules on held-out prompts, each made once."""

    evaluator: Evaluator
    store: Store

    def __call__(self, schedule: CacheSchedule, prompts: int | None = None) -> np.ndarray:
        """float64 (prompts,), of the first prompts, or of all."""
        first = self.evaluator if prompts is None else replace(self.evaluator, prompts=self.evaluator.prompts[:prompts])
        return evaluate(first, [schedule], self.store)[0]


def remembering(evaluator: LocalEvaluator, store: Store) -> LocalEvaluator:
    """The same evaluator, which makes no image whose score is in the store."""

    def score(schedule: CacheSchedule, items: Batch) -> np.ndarray:
        found = store.scores(plan_key(schedule), items, evaluator.scorer)
        if np.isnan(found).any():
            found = evaluator.score(evaluator.generate(schedule, items), items)
            store.add_scores(plan_key(schedule), items, evaluator.scorer, found)
        return found

    return replace(evaluator, generate=lambda schedule, items: schedule, score=score)


@dataclass
class Fits:
    """Output weights of schedules, each fitted once; counts the images that it takes."""

    fit: Callable[[CacheSchedule], CacheSchedule]
    known: dict[bytes, CacheSchedule] = field(default_factory=dict)

    def __call__(self, schedule: CacheSchedule) -> CacheSchedule:
        key = plan_key(schedule)
        if key not in self.known:
            self.known[key] = self.fit(schedule)
        return self.known[key]


@dataclass
class Run:
    """The searches of one seed, in the eyes of held-out prompts."""

    generator: ImageGenerator
    seed: int
    folder: Path
    held_out: HeldOutScores
    generations: int = GENERATIONS

    @cached_property
    def prompts(self) -> list[str]:
        texts, first = builtin.prompts("search"), self.seed * APART % len(builtin.prompts("search"))
        return (texts[first:] + texts[:first])[: SEARCH + VALIDATION]

    def evaluator(self, texts: Sequence[str], seed: int) -> LocalEvaluator:
        """Of some of the search prompts. What another arm has scored already is not made again."""
        prompts = [Prompt(f"{builtin.prompts('search').index(text):04d}", text) for text in texts]
        return remembering(evaluator_of(self.generator, prompts, [seed]), self.held_out.store)

    def searched(self, arm: str) -> dict[str, Any]:
        """Search, or resume, and compare what is exported."""
        problem = replace(problem_of(self.generator), forecast="either")
        evaluator = self.evaluator(self.prompts[:SEARCH], self.seed)
        with search_progress() as on_progress:
            study = search(
                problem,
                evaluator,
                self.folder / f"{file_name(arm)}-{self.seed}",
                generations=self.generations,
                patience=PATIENCE,
                max_cost=problem.uncached_cost * COSTS[-1] * (1 + _ROUNDING),
                seed=self.seed,
                ingredients=ARMS[arm],
                on_progress=on_progress,
            )
        fit = Fits(weights_fitter(self.generator, self.prompts[:SEARCH], [self.seed] * SEARCH))
        first = VALIDATION_SEED + ROUNDS * self.seed
        validation = [self.evaluator(self.prompts[SEARCH:], first + place) for place in range(ROUNDS)]
        validated: dict[tuple[int, bytes], float] = {}
        handed = self._selected(study, fit, validation, validated)
        spent = _images(study, fit, validated)
        name, made = f"{arm}, seed {self.seed}", {"method": "optimize", "images": spent}
        Front(name, handed, provenance=made).save(self.folder / "fronts" / f"{file_name(arm)}-{self.seed}.json")
        begun = copy.copy(study)
        begun.candidates = [one for one in study.candidates if one.generation <= LAST_PROGRAMMED]
        beginning = self._selected(begun, fit, validation, {})
        rows = [self._compared(study, cost, handed, beginning, fit, validation[0]) for cost in COSTS]
        generations = len(study.history)
        study.close()
        return {"generations": generations, "images": spent, "costs": rows}

    def calibrated(self, arm: str) -> dict[str, Any]:
        """Calibrate, and score what is handed out."""
        prompts = self.prompts[:CALIBRATION]
        speedups = [_speedup(cost) for cost in COSTS]
        front = calibrated_front(
            self.generator, prompts, seed=1000 * self.seed, speedups=speedups, max_images=CALIBRATIONS[arm]
        )
        rows = [{"cost": cost, **self._scored("handed_out", affordable(front.points, cost))} for cost in COSTS]
        return {"images": {"in all": front.provenance["images"]}, "costs": rows}

    def _selected(
        self, study: Study, fit: Fits, validation: Sequence[Evaluator], costs: dict[tuple[int, bytes], float]
    ) -> list[Point]:
        """What is handed out; writes the costs of the schedules that each round validates."""

        def judge(place: int, one: Candidate) -> tuple[Evaluator, None]:
            costs[place, plan_key(one.plain)] = one.cost
            return validation[place], None

        finalists = _finalists(study)
        rounds = [partial(judge, place) for place in range(len(validation))]
        found = select_by_validation(finalists, lambda chosen: (fit(one.plain) for one in chosen), rounds, _silent)
        return [Point(one.plain, one.cost / study.uncached_cost, one.quality) for one in found]

    def _compared(
        self,
        study: Study,
        cost: float,
        handed: list[Point],
        beginning: list[Point],
        fit: Fits,
        validation: Evaluator,
    ) -> dict[str, Any]:
        chosen = affordable(handed, cost)
        near = self._contenders(near_front(study.within_limits(), study.uncached_cost, [_speedup(cost)]), validation)
        pool = [Point(fit(one.plain) if one.plain.forecast else one.plain, one.cost, one.quality) for one in near]
        if chosen is not None:
            least = self.held_out(chosen.schedule, _RACED).mean() - _GIVEN_UP
            pool = [one for one in pool if self.held_out(one.schedule, _RACED).mean() >= least] + [chosen]
        best = max(pool, key=lambda one: self.held_out(one.schedule).mean())
        return {
            "cost": cost,
            **self._scored("handed_out", chosen),
            **self._scored("beginning", affordable(beginning, cost)),
            **self._scored("best", best),
        }

    def _contenders(self, near: Sequence[Candidate], validation: Evaluator) -> list[Candidate]:
        """Those that may be the best once they are fitted: that are not far behind on the validation prompts."""
        found = [float(evaluate(validation, [one.plain])[0].mean()) for one in near]
        return [one for one, quality in zip(near, found, strict=True) if quality >= max(found) - _FAR_BEHIND]

    def _scored(self, name: str, choice: Point | None) -> dict[str, Any]:
        if choice is None:
            raise EcadError(f"seed {self.seed}: nothing is handed out at or below a cost of {COSTS[0]}")
        return {name: np.round(self.held_out(choice.schedule), 4).tolist(), f"{name}_is": choice.schedule.name}


def _finalists(study: Study) -> list[Candidate]:
    return near_front(study.within_limits(), study.uncached_cost, [_speedup(cost) for cost in COSTS])


def _speedup(cost: float) -> float:
    return (1 - _ROUNDING) / cost


def _images(study: Study, fit: Fits, validated: Mapping[tuple[int, bytes], float]) -> dict[str, float]:
    """What was spent, in uncached images' worth of MACs, uncached references included."""
    whole = study.uncached_cost
    searched = sum(one.cost / whole for one in study.candidates)
    fitted = sum(share_run(one) for one in fit.known.values())
    return {
        "search": round(SEARCH * (1 + searched), 1),
        "validation": round(VALIDATION * (len({place for place, _ in validated}) + sum(validated.values()) / whole), 1),
        "fits": round(SEARCH * (1 + 2 * fitted), 1),
    }


def file_name(arm: str) -> str:
    return arm.replace(",", "").replace(" ", "-")


def _silent(items: Iterable[Any], label: str, *, total: int) -> Iterable[Any]:
    return items


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", default="EmojiImageGenerator")
    parser.add_argument("--arms", default="search|calibrate", help="separated by |")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--generations", type=int, default=GENERATIONS, help="of a search, the beginning included")
    parser.add_argument("--held-out", type=int, default=24, help="held-out prompts")
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks/regret"))
    args = parser.parse_args()
    arms, seeds = args.arms.split("|"), [int(seed) for seed in args.seeds.split(",")]
    known = (*ARMS, *CALIBRATIONS)
    if unknown := [name for name in arms if name not in known]:
        raise EcadError(f"arm {unknown[0]!r} is unknown: expected any of {' | '.join(known)}")
    generator = get_image_generator(args.generator)
    folder = args.output / f"{args.generator}-{generator.fingerprint()}"
    texts = builtin.prompts("held_out")[: args.held_out]
    held_out = evaluator_of(
        generator, [Prompt(f"held_out_{i:04d}", text) for i, text in enumerate(texts)], [HELD_OUT_SEED]
    )
    with Store.open(folder / "scores") as store:
        for seed in seeds:
            for arm in arms:
                file = folder / f"{file_name(arm)}-{seed}.json"
                if file.exists():
                    continue
                console.print(f"{args.generator}, {arm}, seed {seed}")
                run = Run(generator, seed, folder, HeldOutScores(held_out, store), args.generations)
                found = run.calibrated(arm) if arm in CALIBRATIONS else run.searched(arm)
                write_atomic(file, json.dumps({"arm": arm, "seed": seed, **found}) + "\n")
    result = {"generator": args.generator, "weights": generator.fingerprint(), "held_out": len(texts)}
    result |= summary(folder)
    print_tables(result)
    write_atomic(args.output / f"regret-{args.generator}.json", json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
