"""A study: one search and everything it evaluated, read from its folder."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, get_args

import numpy as np

from ecad.errors import EcadError, ScheduleError
from ecad.genetic.genes import Forecast, SearchSpace, unpack
from ecad.genetic.study.items import Batch, Item, all_items
from ecad.genetic.study.layout import DATABASE
from ecad.genetic.study.store import Store
from ecad.genetic.study.stored_settings import check_settings
from ecad.prompts import Prompt
from ecad.schedules import CacheSchedule
from ecad.schedules.output_products import read_products
from ecad.schedules.plan_key import plan_key
from ecad.schedules.schedule import Bits
from ecad.utils.pareto import hypervolume, pareto


@dataclass(frozen=True, eq=False)
class Candidate:
    """An evaluated schedule.

    Args:
        generation, number: its place in the study.
        plain: its schedule without metrics.
        cost: of one image.
        quality: mean score of its images, larger is better.
        unit: of the cost, "MACs" or "ns".
    """

    generation: int
    number: int
    plain: CacheSchedule = field(repr=False)
    cost: int
    quality: float
    unit: str = "MACs"

    @cached_property
    def schedule(self) -> CacheSchedule:
        """Its schedule, with cost and quality among the metrics."""
        macs = {"total_macs": self.cost, "total_macs_T": self.cost / 1e12}
        cost = macs if self.unit == "MACs" else {"expected_ms": self.cost / 1e6}
        return self.plain.replace(
            metrics={**cost, "quality": self.quality},
            attributes={"generation": self.generation, "candidate": self.number},
        )

    @property
    def name(self) -> str:
        """The name of its schedule."""
        return self.plain.name

    @property
    def recompute(self) -> Bits:
        """What it recomputes, bool (steps, sites)."""
        return self.plain.recompute

    @property
    def path(self) -> Path:
        """Its file inside the study's folder, in the layout of the paper's release."""
        return Path(f"gen_{self.generation:03d}", "candidates", f"cand_{self.number:03d}.json")


@dataclass(frozen=True)
class Generation:
    """The state of a study when a generation was complete.

    Args:
        number: 0 for the initial population.
        images: made since the study began.
        seconds: spent since the study began.
        front_size: non-dominated candidates so far.
        hypervolume: of the front (`utils.pareto.hypervolume`), measured from the cost of an uncached image and the
            worst quality of generation 0.
    """

    number: int
    images: int
    seconds: float
    front_size: int
    hypervolume: float


class Study:
    """A snapshot of a study: a search that continues to write it changes nothing here.

    Args:
        store: of the study; must stay open while scores are read.

    Attributes:
        settings: of the search.
        space: the search space.
        versions: package -> all versions of it that searched the study.
        items: the images that every candidate is scored on.
        held_out: other images that were scored.
        held_out_by: scorer -> other images that it scored; the search's scorer, then a second one.
        candidates: all that were evaluated, in order, including those of an unfinished generation.
        unit: of all costs, "MACs" or "ns".
        history: one entry per complete generation.
        images, seconds: made and spent since the study began, also for a generation that is not complete.
        failures: name of a candidate that was given up -> the reason.

    Raises:
        EcadError: nothing is in it yet, or it is damaged.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.settings: dict[str, Any] = store.settings()
        if not self.settings:
            raise EcadError(f"{store.name}: the study is empty: its search was stopped before it began; run it again")
        try:
            self._read(store)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, EcadError) and not isinstance(error, ScheduleError):
                raise
            reason = f"{type(error).__name__}: {error}"
            raise EcadError(
                f"{store.name}: the study is damaged: {DATABASE}: {reason}; restore it from a copy"
            ) from error

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Study:
        """Read the study in a folder, finished or not, even while a search writes it.

        Raises:
            EcadError: there is no study, nothing is in it yet, or it is damaged or of a newer ecad.
        """
        store = Store.read(folder)
        try:
            return cls(store)
        except BaseException:
            store.close()
            raise

    def front(self) -> list[Candidate]:
        """The Pareto front of the candidates within the search's limits, cheapest first."""
        known = self.within_limits()
        cost = np.array([candidate.cost for candidate in known])
        quality = np.array([candidate.quality for candidate in known], dtype=np.float64)
        return [known[i] for i in pareto(cost, quality)]

    def within_limits(self) -> list[Candidate]:
        """The candidates within the search's limits on cost and quality."""
        most, least = self.settings.get("max_cost"), self.settings.get("min_quality")
        return [
            candidate
            for candidate in self.candidates
            if (most is None or candidate.cost <= most) and (least is None or candidate.quality >= least)
        ]

    def scores(self, candidate: Candidate) -> np.ndarray:
        """The scores of a candidate's images, float64 (items,); NaN where there is none."""
        return self.search_scores(candidate.schedule)

    def held_out_scores(self, schedule: CacheSchedule, scorer: str | None = None) -> np.ndarray:
        """The scores of a schedule's images of `held_out_by[scorer]`, float64 (images,); NaN where there is none.

        By default by the search's scorer.
        """
        name = scorer or self.settings["scorer"]
        return self._store.scores(plan_key(schedule), self.held_out_by.get(name, ()), name)

    def search_scores(self, schedule: CacheSchedule) -> np.ndarray:
        """The scores of any schedule's images of `items`, float64 (items,); NaN where there is none."""
        return self._store.scores(plan_key(schedule), self.items, self.settings["scorer"])

    def plot(self) -> Any:
        """A plotly figure of all candidates and the front, by generation; needs the extra `report`."""
        from ecad.report import check_installed

        check_installed()
        from ecad.genetic.study.results import results_of
        from ecad.report.figures import front_figure

        return front_figure(results_of(self))

    @property
    def uncached(self) -> CacheSchedule:
        """The schedule that recomputes everything."""
        return self.space.template

    def close(self) -> None:
        """Close the study's file; everything but scores and `plot` remains usable."""
        self._store.close()

    def _read(self, store: Store) -> None:
        settings = self.settings
        check_settings(settings)
        self.space = _space(settings)
        self.versions = store.versions()
        self.uncached_cost: int = settings["uncached_cost"]
        self.items: Batch = all_items([Prompt(*prompt) for prompt in settings["prompts"]], settings["seeds"])
        known = {(item.prompt.id, item.prompt.text, item.seed) for item in self.items}
        self.held_out_by: dict[str, Batch] = {
            name: tuple(
                Item(Prompt(id, text), seed) for id, text, seed in store.items(name) if (id, text, seed) not in known
            )
            for name in dict.fromkeys([settings["scorer"], *store.scorers()])
        }
        self.held_out: Batch = self.held_out_by[settings["scorer"]]
        # Candidates before generations: a search that is writing may add generations meanwhile, but removes none.
        rows = store.candidates()
        self.unit: str = settings.get("unit", "MACs")
        self.candidates: list[Candidate] = []
        self.failures: dict[str, str] = {}
        unfinished = set()
        for row in rows:
            name = candidate_name(row.generation, row.number)
            plain = self.space.schedule(unpack(row.bits, self.space.shape), name)
            if row.quality is not None:
                self.candidates.append(Candidate(row.generation, row.number, plain, row.cost, row.quality, self.unit))
            elif reason := next(filter(None, store.failures(plan_key(plain), self.items, settings["scorer"])), None):
                self.failures[name] = reason
            else:
                unfinished.add(row.generation)
        self.history = self._history(store, unfinished)
        spent = store.generations()
        self.images, self.seconds = sum(row.images for row in spent), sum(row.seconds for row in spent)

    def _history(self, store: Store, unfinished: set[int]) -> list[Generation]:
        history: list[Generation] = []
        cost, quality, worst = np.zeros(0, dtype=np.int64), np.zeros(0), 0.0
        spent = {row.number: row for row in store.generations()}
        images, seconds = 0, 0.0
        for number, group in groupby(self.candidates, key=lambda candidate: candidate.generation):
            if number in unfinished:
                break
            members = list(group)
            cost = np.append(cost, [candidate.cost for candidate in members])
            quality = np.append(quality, [candidate.quality for candidate in members])
            worst = worst if number else float(quality.min())
            kept = pareto(cost, quality)
            cost, quality = cost[kept], quality[kept]
            images += spent[number].images
            seconds += spent[number].seconds
            area = hypervolume(cost, quality, self.uncached_cost, worst)
            history.append(Generation(number, images, seconds, len(kept), area))
        return history


def candidate_name(generation: int, number: int) -> str:
    """The name of a candidate's schedule."""
    return f"gen_{generation:03d}_cand_{number:03d}"


def _space(settings: dict[str, Any]) -> SearchSpace:
    recompute = np.ones((settings["steps"], len(settings["sites"])), dtype=bool)
    products = read_products(settings.get("output_products"), len(recompute))
    config = {**settings["config"], **settings.get("noise_levels", {})}
    template = CacheSchedule(recompute, settings["sites"], "uncached", config=config, output_products=products)
    forecast = settings.get("forecast", "never")
    if forecast not in get_args(Forecast):
        raise ValueError(f"forecast: expected one of {', '.join(get_args(Forecast))}, found {forecast!r}")
    reusable = settings.get("reusable")
    return SearchSpace(
        template, forecast=forecast, reusable=None if reusable is None else np.array(reusable, dtype=bool)
    )
